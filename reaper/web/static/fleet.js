// The page of the fleet.

import {show_hours} from "./charts.js";
import {$, set} from "./elements.js";
import {address, host_name, outcome, page_of} from "./row_view.js";
import {fill} from "./table.js";
import {between, since, span} from "./times.js";

const state = {rows: new Map(), running: [], pending: [], ended: [], total: {}, hosts: [], hours: null};
const row = id => state.rows.get(id);
const decky = each => ({text: each.decky, href: page_of(each.id)});
const host_cells = new Map();
const host = each => {
  if (!host_cells.has(each.host)) host_cells.set(each.host, {text: host_name(each.host), href: address("host", each.host ?? "-")});
  return host_cells.get(each.host);
};

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
  if (full) $("older").href = address("until", row(state.ended.at(-1)).ended);
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
    const word = each.present === null ? "not known" : each.present ? "present" : "absent";
    return [
      {text: name, href: `/?host=${encodeURIComponent(each.host ?? "-")}`}, {text: word, class: `state ${word}`},
      {text: `${each.deckies}`, class: "n"}, {text: `${each.running}`, class: "n"}, {text: `${each.pending}`, class: "n"},
    ];
  });
}

export function take_fleet(news) {
  for (const each of news.rows ?? []) state.rows.set(each.id, each);
  for (const key of ["running", "pending", "ended", "total", "hosts", "hours"]) if (key in news) state[key] = news[key];
  show_open();
  if (news.ended || news.rows) show_ended();
  if (news.total) show_counts();
  if (news.hosts) show_hosts();
  if (news.hours) show_hours(news.hours);
  $("fleet").hidden = false;
  const shown = new Set([...state.running, ...state.pending, ...state.ended]);
  for (const id of state.rows.keys()) if (!shown.has(id)) state.rows.delete(id);
}

export function tick_fleet() {
  if (state.running.length + state.pending.length) show_open();
}

export function start_fleet() {
  const filter = $("filter");
  if (location.search)
    for (const none of document.querySelectorAll(".none")) set(none, "Nothing that the filter lets through.");
  for (const [name, value] of new URLSearchParams(location.search))
    if (filter.elements[name]) filter.elements[name].value = value;
  filter.addEventListener("submit", event => {
    event.preventDefault();
    const given = [...new FormData(filter)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);
    location.assign(`/?${new URLSearchParams(given)}`);
  });
}
