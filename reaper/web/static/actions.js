// What a row's page may do, each behind a question and a token.

import {$, make, set} from "./elements.js";
import {page_of} from "./row_view.js";

const QUESTIONS = {
  cancel: each => `End this ${each.operation} of ${each.decky}? Its row will say that it was cancelled.`,
  retry: each => `Ask for this ${each.operation} of ${each.decky} once more?`,
  teardown: each => `Take ${each.decky} down? What runs for it goes, its services too.`,
};
let row = null, asked = null;

export function start_actions() {
  $("ask").addEventListener("submit", act);
  $("ask-no").addEventListener("click", () => $("ask").close());
}

export function show_actions(each, names) {
  row = each;
  const shown = names.join();
  $("row-actions").hidden = !names.length;
  if ($("row-actions").dataset.shown === shown) return;
  $("row-actions").dataset.shown = shown;
  $("row-actions").replaceChildren(...names.map(name => make("button", name, {type: "button", onclick: () => ask(name)})));
}

function ask(name) {
  asked = name;
  set($("ask-h"), `${name}?`);
  set($("ask-what"), QUESTIONS[name](row));
  set($("ask-yes"), `Yes, ${name}`);
  set($("ask-error"), "");
  $("ask").showModal();
}

async function act(event) {
  event.preventDefault();
  $("ask-yes").disabled = true;
  try {
    const answer = await fetch(`${page_of(row.id)}/${asked}`, {
      method: "POST", body: "{}", headers: {"Content-Type": "application/json", "X-Decnet-Token": $("token").value},
    });
    const reply = await answer.json();
    if (!answer.ok) return set($("ask-error"), reply.error);
    $("ask").close();
    $("token").value = "";
    set($("announced"), `${asked}: done`);
    if (reply.row !== row.id) location.assign(page_of(reply.row));
  } catch (error) {
    set($("ask-error"), `Nobody answered (${error.message}). Look at the row before you try again.`);
  } finally {
    $("ask-yes").disabled = false;
  }
}
