// The live page: what the server says is handed to the page of the fleet, or to that of a row.

import {start_actions} from "./actions.js";
import {$, say_alert, set} from "./elements.js";
import {start_fleet, take_fleet, tick_fleet} from "./fleet.js";
import {take_row, tick_row} from "./story.js";
import {roles} from "./table.js";
import {clock, set_clock} from "./times.js";

const row_id = location.pathname.startsWith("/row/") ? location.pathname.slice("/row/".length) : null;
const [take, tick] = row_id ? [take_row, tick_row] : [take_fleet, tick_fleet];
const SILENCE_MS = 6000; // the server says something each second
let source, heard, lost = false;

function show_health(news) {
  for (const name of ["store", "queue"]) {
    if (!news[name]) continue;
    const {up, since: from, reason} = news[name];
    const word = up === null ? "not looked at yet" : `${up ? "up" : "down"} since ${clock(from)}${reason ? `: ${reason}` : ""}`;
    set($(name), `${name} ${word}`);
    $(name).dataset.state = up === null ? "wait" : up ? "up" : "down";
  }
}

function show_live(is_live) {
  set($("live"), is_live ? "live" : "not live");
  $("live").dataset.state = is_live ? "up" : "down";
}

function connect() {
  heard = Date.now();
  source?.close();
  source = new EventSource(row_id ? `/events/${row_id}` : `/events${location.search}`);
  source.onmessage = message => {
    const news = JSON.parse(message.data);
    heard = Date.now();
    set_clock(news.now);
    if (lost) say_alert("");
    lost = false;
    show_live(true);
    show_health(news);
    take(news);
  };
  source.onerror = () => source.readyState === EventSource.CLOSED ? why_closed() : lose();
}

function lose() {
  if (!lost) say_alert(`No connection since ${clock(new Date().toISOString())}. What is shown is from then; it is tried again by itself.`);
  lost = true;
  show_live(false);
}

async function why_closed() {
  const stop = new AbortController();
  try {
    const answer = await fetch(source.url, {signal: stop.signal});
    if (answer.status === 400 || answer.status === 404) {
      say_alert((await answer.json()).error);
      show_live(false);
      heard = Infinity; // asking again would not help
    } else lose();
  } catch {
    lose(); // the watch below asks again
  } finally {
    stop.abort();
  }
}

setInterval(() => {
  const silent = Date.now() - heard;
  if (silent > 1500) tick(); // else what was heard has set the clocks
  if (silent < SILENCE_MS) return;
  lose();
  connect();
}, 1000);

roles();
$("parts").hidden = row_id !== null;
if (row_id) start_actions();
else start_fleet();
connect();
