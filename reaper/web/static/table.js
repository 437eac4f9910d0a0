// Tables, whose rows are kept and changed in place.

import {$, make} from "./elements.js";
import {time_of} from "./times.js";

const tables = {};

export function fill(id, keys, cells_of) {
  const body = $(id);
  const empty = body.empty_ ??= empty_row(body.parentNode.querySelectorAll("th"));
  const kept = tables[id] ??= new Map();
  const wanted = new Set(keys);
  for (const [key, tr] of kept) if (!wanted.has(key)) { tr.remove(); kept.delete(key); }
  let place = body.firstChild;
  for (const key of keys) {
    let tr = kept.get(key);
    if (!tr) kept.set(key, tr = empty.cloneNode(true));
    if (tr === place) place = place.nextSibling;
    else body.insertBefore(tr, place);
    cells_of(key).forEach((cell, n) => put(tr.children[n], cell));
  }
  const none = $(`${id}-none`);
  if (none) none.hidden = keys.length > 0;
}

function empty_row(heads) {
  const tr = make("tr");
  tr.setAttribute("role", "row");
  for (const th of heads) {
    const td = make("td");
    td.setAttribute("role", "cell");
    td.dataset.label = th.textContent.trim();
    tr.append(td);
  }
  return tr;
}

// A cell is a text, or {text, href, class, time, long}; what stands there already is left alone.
function put(td, cell) {
  const {text = "", href, class: style = "", time, long} = typeof cell === "object" ? cell : {text: cell};
  const shown = `${text}\n${href ?? ""}`;
  if (td.className !== style) td.className = style;
  if (td.shown_ === shown) return;
  td.shown_ = shown;
  if (href) td.replaceChildren(make("a", text, {href}));
  else if (time) td.replaceChildren(text ? time_of(text) : "");
  else if (long && text.length > 300) {
    const details = make("details", undefined, {open: td.firstChild?.open ?? false});
    details.append(make("summary", `${text.slice(0, 140)}...`), make("p", text));
    td.replaceChildren(details);
  } else td.textContent = text;
}

// Their semantics stay where a narrow window shows tables as blocks.
export function roles(within = document) {
  const names = {TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TH: "columnheader", TD: "cell"};
  for (const each of within.querySelectorAll("table, thead, tbody, tr, th, td")) each.setAttribute("role", names[each.tagName]);
}
