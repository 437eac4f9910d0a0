// The live page. Whatever comes from the server becomes text, never markup: there is no innerHTML here, and the
// page's Content-Security-Policy (Trusted Types) forbids it.

const $ = id => document.getElementById(id);
const row_id = location.pathname.startsWith("/row/") ? location.pathname.slice("/row/".length) : null;
const SILENCE_MS = 6000; // the server says something each second

// ---- small things

function make(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  return made;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function span(seconds) {
  if (seconds === null || Number.isNaN(seconds)) return "";
  const s = Math.max(0, seconds);
  if (s < 9.95) return `${s.toFixed(1)} s`;
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (s >= 2 * size) return `${Math.floor(s / size)} ${unit}`;
  return `${Math.floor(s)} s`;
}

let ahead_ms = 0; // the server's clock, minus this one
const now = () => Date.now() + ahead_ms;
const at = text => text === null ? NaN : Date.parse(text);
const between = (from, to) => (at(to) - at(from)) / 1000;
const since = from => (now() - at(from)) / 1000;

function clock(text) {
  const when = new Date(text);
  const time = when.toLocaleTimeString([], {hour12: false});
  return when.toDateString() === new Date(now()).toDateString() ? time : `${when.toLocaleDateString()} ${time}`;
}

function time_of(text) {
  return make("time", clock(text), {dateTime: text, title: text});
}

const page_of = id => `/row/${encodeURIComponent(id)}`;
const host_name = host => host === null ? "master" : host;
const address = more => {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(more)) query.set(name, value);
  return `/?${query}`;
};

// ---- tables, whose rows are kept and changed in place

const tables = {};

function fill(id, keys, cells_of) {
  const body = $(id);
  const labels = body.labels_ ??= [...body.parentNode.querySelectorAll("th")].map(th => th.textContent.trim());
  const kept = tables[id] ??= new Map();
  const wanted = new Set(keys);
  for (const [key, tr] of kept) if (!wanted.has(key)) { tr.remove(); kept.delete(key); }
  let place = body.firstChild;
  for (const key of keys) {
    let tr = kept.get(key);
    if (!tr) {
      tr = make("tr");
      tr.setAttribute("role", "row");
      for (const label of labels) {
        const td = make("td");
        td.setAttribute("role", "cell");
        td.dataset.label = label;
        tr.append(td);
      }
      kept.set(key, tr);
    }
    if (tr === place) place = place.nextSibling;
    else body.insertBefore(tr, place);
    cells_of(key).forEach((cell, n) => put(tr.children[n], cell));
  }
  const none = $(`${id}-none`);
  if (none) none.hidden = keys.length > 0;
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

function outcome(row) {
  const word = row.outcome ?? row.status;
  return {text: row.attempt > 1 ? `${word}, try ${row.attempt}` : word, class: `state ${word}`};
}

// ---- the fleet

const state = {rows: new Map(), running: [], pending: [], ended: [], total: {}, hosts: [], hours: null};
const row = id => state.rows.get(id);
const decky = each => ({text: each.decky, href: page_of(each.id)});
const host = each => ({text: host_name(each.host), href: address({host: each.host ?? "-"})});

function deadline(each) {
  if (!each.deadline) return "";
  const left = -since(each.deadline);
  return left < 0 ? {text: `${span(-left)} past`, class: "n late"} : {text: span(left), class: "n"};
}

function show_open() {
  fill("running", state.running, id => [
    decky(row(id)), host(row(id)), row(id).operation, {text: span(since(row(id).claimed)), class: "n"},
    deadline(row(id)), {text: row(id).cancelling ? "is being cancelled" : row(id).line, class: "line"},
  ]);
  fill("pending", state.pending, id => [
    decky(row(id)), host(row(id)), row(id).operation, {text: span(since(row(id).accepted)), class: "n"}, row(id).why,
  ]);
}

function show_ended() {
  fill("ended", state.ended, id => [
    {text: row(id).ended, time: true}, decky(row(id)), host(row(id)), row(id).operation, outcome(row(id)),
    {text: span(between(row(id).accepted, row(id).claimed)), class: "n"},
    {text: span(between(row(id).claimed, row(id).ended)), class: "n"},
    {text: row(id).error ?? "", class: "error", long: true},
  ]);
  const full = state.ended.length >= 200;
  $("older").hidden = !full;
  if (full) $("older").href = address({until: row(state.ended.at(-1)).ended});
}

function show_counts() {
  for (const list of ["running", "pending"]) {
    const {length} = state[list], total = state.total[list];
    set($(`${list}-n`), total > length ? `${total}, of which ${length} are shown: filter for others` : `${total}`);
  }
  set($("ended-n"), state.ended.length >= 200 ? "the latest 200" : `${state.ended.length}`);
  document.title = `${state.total.running} run, ${state.total.pending} wait - Deckies`;
}

function show_hosts() {
  const hosts = new Map(state.hosts.map(each => [host_name(each.host), each]));
  fill("hosts", [...hosts.keys()], name => {
    const each = hosts.get(name);
    const word = each.present === null ? "not told" : each.present ? "present" : "absent";
    return [
      {text: name, href: `/?host=${encodeURIComponent(each.host ?? "-")}`}, {text: word, class: `state ${word}`},
      {text: `${each.deckies}`, class: "n"}, {text: `${each.running}`, class: "n"}, {text: `${each.pending}`, class: "n"},
    ];
  });
}

function take_fleet(news) {
  for (const each of news.rows ?? []) state.rows.set(each.id, each);
  for (const key of ["running", "pending", "ended", "total", "hosts", "hours"]) if (key in news) state[key] = news[key];
  show_open();
  if (news.ended || news.rows) show_ended();
  if (news.total) show_counts();
  if (news.hosts) show_hosts();
  if (news.hours) show_hours(news.hours);
  const shown = new Set([...state.running, ...state.pending, ...state.ended]);
  for (const id of state.rows.keys()) if (!shown.has(id)) state.rows.delete(id);
}

// ---- charts

const OUTCOMES = ["succeeded", "cancelled", "interrupted", "expired", "timed_out", "lost", "swept", "failed"];
const WIDTH = 480, HEIGHT = 110, HOUR_MS = 3600000;

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function chart(title, said, most, draw) {
  const figure = make("figure");
  const picture = svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT + 16}`, role: "img", "aria-label": `${title}: ${said}`});
  picture.append(svg("line", {x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "axis"}));
  draw(picture);
  picture.append(svg("text", {x: 0, y: 10}, most), svg("text", {x: 0, y: HEIGHT + 13}, "24 h ago"),
    svg("text", {x: WIDTH, y: HEIGHT + 13, class: "end"}, "now"));
  figure.append(make("figcaption", title), picture, make("p", said));
  return figure;
}

function show_hours(hours) {
  const first = Math.floor(now() / HOUR_MS) * HOUR_MS - 23 * HOUR_MS;
  const slots = Array.from({length: 24}, (_, n) => ({begins: new Date(first + n * HOUR_MS), outcomes: {}}));
  for (const hour of hours) {
    const n = Math.round((at(hour.begins) - first) / HOUR_MS);
    if (slots[n]) Object.assign(slots[n], hour, {begins: slots[n].begins});
  }
  const label = slot => slot.begins.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit", hour12: false});
  const count = slot => Object.values(slot.outcomes).reduce((sum, n) => sum + n, 0);
  const most = Math.max(1, ...slots.map(count));
  const totals = OUTCOMES.map(word => [word, slots.reduce((sum, slot) => sum + (slot.outcomes[word] ?? 0), 0)]);
  const told = totals.filter(([, n]) => n).map(([word, n]) => `${n} ${word}`).join(", ") || "nothing has ended";
  const operations = chart("Operations an hour", told, `${most}`, picture => slots.forEach((slot, n) => {
    let y = HEIGHT;
    for (const word of OUTCOMES) {
      const height = (slot.outcomes[word] ?? 0) / most * (HEIGHT - 14);
      if (!height) continue;
      y -= height;
      const bar = svg("rect", {x: n * 20 + 1, y, width: 18, height, class: `bar ${word}`});
      bar.append(svg("title", {}, `${label(slot)}: ${slot.outcomes[word]} ${word}`));
      picture.append(bar);
    }
  }));
  $("figures").replaceChildren(operations, spread("Wait until the start", "wait", slots, label),
    spread("Time that it took", "took", slots, label));
  const head = make("tr"), table = $("figures-table");
  for (const text of ["Hour", "Ended", "Wait p50", "p99", "Took p50", "p99"]) head.append(make("th", text, {scope: "col"}));
  table.replaceChildren(make("thead"), make("tbody"));
  table.firstChild.append(head);
  for (const slot of slots.filter(count)) {
    const line = make("tr");
    const ended = OUTCOMES.filter(word => slot.outcomes[word]).map(word => `${slot.outcomes[word]} ${word}`).join(", ");
    const times = [slot.wait, slot.took].flatMap(pair => pair ? pair.map(span) : ["", ""]);
    for (const text of [label(slot), ended, ...times]) line.append(make("td", text));
    table.lastChild.append(line);
  }
  roles();
}

function spread(title, what, slots, label) {
  const most = Math.max(0.1, ...slots.map(slot => slot[what]?.[1] ?? 0));
  const last = slots.findLast(slot => slot[what]);
  const told = last ? `in the hour from ${label(last)} p50 ${span(last[what][0])}, p99 ${span(last[what][1])}` : "nothing has run";
  return chart(title, told, span(most), picture => {
    [["p99", 1], ["p50", 0]].forEach(([name, which]) => {
      const points = slots.map((slot, n) => slot[what] && [n * 20 + 10, HEIGHT - slot[what][which] / most * (HEIGHT - 14)]);
      picture.append(svg("path", {class: `line ${name}`, d: points.map((point, n) =>
        point ? `${points[n - 1] ? "L" : "M"}${point[0]} ${point[1]}` : "").join("")}));
      points.forEach((point, n) => {
        if (!point) return;
        const dot = svg("circle", {cx: point[0], cy: point[1], r: 2.5, class: name});
        dot.append(svg("title", {}, `${label(slots[n])}: ${name} ${span(slots[n][what][which])}`));
        picture.append(dot);
      });
    });
  });
}

// ---- a row

function take_row(news) {
  if (!("story" in news)) return tick_row();
  const story = state.story = news.story;
  if (story === null) return say_alert("There is no such row. It may have been pruned.");
  const each = story.row;
  document.title = `${each.operation} of ${each.decky} - Deckies`;
  $("row-h").replaceChildren(`${each.operation} of `, make("a", each.decky, {href: `/?decky=${encodeURIComponent(each.decky)}`}),
    each.host === null ? "" : ` on ${each.host}`);
  tick_row();
  $("steps").replaceChildren(...story.steps.map(step => {
    const item = make("li", undefined, {className: `state ${step.what}`});
    item.append(time_of(step.at), ` +${span(step.after)} `, make("b", step.what), " ",
      step.row ? make("a", "the other row", {href: page_of(step.row)}) : "", make("span", step.text));
    return item;
  }));
  set($("request"), story.request ?? "Nobody knows: another program wrote this row.");
  set($("runs"), story.runs.join(", ") || "nothing that is known here");
  const rows = new Map(story.around.map(other => [other.id, other]));
  fill("around", [...rows.keys()], id => [
    {text: rows.get(id).accepted, time: true},
    id === each.id ? `${rows.get(id).operation} (this row)` : {text: rows.get(id).operation, href: page_of(id)},
    outcome(rows.get(id)), rows.get(id).services.join(", "), {text: rows.get(id).error ?? "", class: "error", long: true},
  ]);
  show_actions(each);
}

function tick_row() {
  const each = state.story?.row;
  if (!each) return;
  const words = {
    pending: () => `pending for ${span(since(each.accepted))}${each.why ? `, waits ${each.why}` : ""}`,
    running: () => `running for ${span(since(each.claimed))}, deadline in ${span(Math.max(0, -since(each.deadline)))}`
      + (each.cancelling ? ", is being cancelled" : each.line ? `: ${each.line}` : ""),
  };
  set($("row-state"), words[each.status]?.() ?? `${each.outcome ?? each.status} in ${span(between(each.claimed ?? each.accepted, each.ended))}`);
  $("row-state").className = `state ${each.outcome ?? each.status}`;
}

// ---- actions

const ACTIONS = {
  cancel: {open: true, says: each => `End this ${each.operation} of ${each.decky}? Its row will say that it was cancelled.`},
  retry: {open: false, says: each => `Ask for this ${each.operation} of ${each.decky} once more?`},
  teardown: {says: each => `Take ${each.decky} down? What runs for it goes, its services too.`},
};
let may_act = false, asked = null;

function show_actions(each) {
  const open = each.status === "pending" || each.status === "running";
  const names = may_act ? Object.keys(ACTIONS).filter(name => (ACTIONS[name].open ?? open) === open) : [];
  const shown = names.join();
  $("row-actions").hidden = !names.length;
  if ($("row-actions").dataset.shown === shown) return;
  $("row-actions").dataset.shown = shown;
  $("row-actions").replaceChildren(...names.map(name => make("button", name, {type: "button", onclick: () => ask(name)})));
}

function ask(name) {
  asked = name;
  set($("ask-h"), `${name}?`);
  set($("ask-what"), ACTIONS[name].says(state.story.row));
  set($("ask-yes"), `Yes, ${name}`);
  set($("ask-error"), "");
  $("ask").showModal();
}

async function act(event) {
  event.preventDefault();
  $("ask-yes").disabled = true;
  try {
    const answer = await fetch(`${page_of(state.story.row.id)}/${asked}`, {
      method: "POST", body: "{}", headers: {"Content-Type": "application/json", "X-Decnet-Token": $("token").value},
    });
    const told = await answer.json();
    if (!answer.ok) return set($("ask-error"), told.error);
    $("ask").close();
    $("token").value = "";
    set($("said"), `${asked}: done`);
    if (told.row !== state.story.row.id) location.assign(page_of(told.row));
  } catch (error) {
    set($("ask-error"), `Nobody answered (${error.message}). Look at the row before you try again.`);
  } finally {
    $("ask-yes").disabled = false;
  }
}

// ---- the stream

let source, heard, lost_at = null;

function say_alert(text) {
  set($("alert"), text);
  $("alert").hidden = !text;
}

function show_health(news) {
  for (const name of ["store", "queue"]) {
    if (!news[name]) continue;
    const {up, since: from, reason} = news[name];
    const word = up === null ? "not looked at yet" : `${up ? "up" : "down"} since ${clock(from)}${reason ? `: ${reason}` : ""}`;
    set($(name), `${name} ${word}`);
    $(name).dataset.state = up === null ? "wait" : up ? "up" : "down";
  }
}

function connect() {
  heard = Date.now();
  source?.close();
  source = new EventSource(row_id ? `/events/${row_id}` : `/events${location.search}`);
  source.onmessage = message => {
    const news = JSON.parse(message.data);
    heard = Date.now();
    ahead_ms = at(news.now) - heard;
    if (lost_at !== null) say_alert("");
    lost_at = null;
    set($("live"), "live");
    $("live").dataset.state = "up";
    show_health(news);
    (row_id ? take_row : take_fleet)(news);
    $("parts").hidden = row_id !== null;
    $(row_id ? "row" : "fleet").hidden = row_id !== null && state.story === null;
  };
  source.onerror = () => source.readyState === EventSource.CLOSED && why_closed();
}

async function why_closed() {
  const stop = new AbortController();
  try {
    const answer = await fetch(source.url, {signal: stop.signal});
    if (answer.status === 400 || answer.status === 404) {
      say_alert((await answer.json()).error);
      heard = Infinity; // asking again would not help
    }
  } catch { /* the watch below asks again */ } finally {
    stop.abort();
  }
}

setInterval(() => {
  if (row_id) tick_row(); else if (state.running.length + state.pending.length) show_open();
  if (Date.now() - heard < SILENCE_MS) return;
  lost_at ??= clock(new Date(heard).toISOString());
  set($("live"), "not live");
  $("live").dataset.state = "down";
  say_alert(`No connection since ${lost_at}. What is shown is from then; it is tried again by itself.`);
  connect();
}, 1000);

// ---- the start

// Their semantics stay where a narrow window shows tables as blocks.
function roles() {
  const names = {TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TH: "columnheader", TD: "cell"};
  for (const each of document.querySelectorAll("table, thead, tbody, tr, th, td")) each.setAttribute("role", names[each.tagName]);
}

roles();
if (location.search) for (const none of document.querySelectorAll(".none")) none.textContent = "Nothing that the filter lets through.";
for (const [name, value] of new URLSearchParams(location.search))
  if ($("filter").elements[name]) $("filter").elements[name].value = value;
$("filter").addEventListener("submit", event => {
  event.preventDefault();
  const given = [...new FormData($("filter"))].filter(([, value]) => value.trim());
  location.assign(`/?${new URLSearchParams(given.map(([name, value]) => [name, value.trim()]))}`);
});
$("ask").addEventListener("submit", act);
$("ask-no").addEventListener("click", () => $("ask").close());
if (row_id) fetch("/can").then(answer => answer.json()).then(can => {
  may_act = can.actions;
  if (state.story) show_actions(state.story.row);
});
connect();
