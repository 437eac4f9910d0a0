// The page of a row.

import {show_actions} from "./actions.js";
import {$, make, say_alert, set} from "./elements.js";
import {outcome, page_of} from "./row_view.js";
import {fill} from "./table.js";
import {between, since, span, time_of} from "./times.js";

let story = null;

export function take_row(news) {
  if (!("story" in news)) return tick_row();
  story = news.story;
  if (story === null) return say_alert("There is no such row. It may have been pruned.");
  const each = story.row;
  document.title = `${each.operation} of ${each.decky} - Deckies`;
  if (!$("row-h").firstChild) $("row-h").append(`${each.operation} of `, make("a", each.decky, {href: `/?decky=${encodeURIComponent(each.decky)}`}),
    each.host === null ? "" : ` on ${each.host}`);
  tick_row();
  show_steps(story.steps);
  set($("request"), story.request ?? "Nobody knows: another program wrote this row.");
  set($("runs"), story.runs.join(", ") || "nothing that is known here");
  const rows = new Map(story.around.map(other => [other.id, other]));
  fill("around", [...rows.keys()], id => [
    {text: rows.get(id).accepted, time: true},
    id === each.id ? `${rows.get(id).operation} (this row)` : {text: rows.get(id).operation, href: page_of(id)},
    outcome(rows.get(id)), rows.get(id).services.join(", "), {text: rows.get(id).error ?? "", class: "error", long: true},
  ]);
  show_actions(each, story.actions);
  $("row").hidden = false;
}

// A step that stands there already is left alone, and so is the focus in it.
function show_steps(steps) {
  const list = $("steps");
  steps.forEach((step, n) => {
    const shown = list.children[n], key = JSON.stringify(step);
    if (shown?.key_ === key) return;
    const item = make("li", undefined, {className: `state ${step.what}`, key_: key});
    item.append(time_of(step.at), ` +${span(step.after)} `, make("b", step.what), " ",
      step.row ? make("a", "the other row", {href: page_of(step.row)}) : "", make("span", step.text));
    if (shown) shown.replaceWith(item); else list.append(item);
  });
  while (list.children.length > steps.length) list.lastChild.remove();
}

export function tick_row() {
  const each = story?.row;
  if (!each) return;
  const words = {
    pending: () => `pending for ${span(since(each.accepted))}${each.why ? ` (${each.why})` : ""}`,
    running: () => `running for ${span(since(each.claimed))}, deadline in ${span(Math.max(0, -since(each.deadline)))}`
      + (each.cancelling ? ", is being cancelled" : each.line ? `: ${each.line}` : ""),
  };
  set($("row-state"), words[each.status]?.() ?? `${each.outcome ?? each.status} in ${span(between(each.claimed ?? each.accepted, each.ended))}`);
  $("row-state").className = `state ${each.outcome ?? each.status}`;
}
