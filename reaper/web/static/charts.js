// The last 24 hours in figures.

import {$, make} from "./elements.js";
import {at, now, span} from "./times.js";
import {roles} from "./table.js";

const OUTCOMES = ["succeeded", "cancelled", "interrupted", "expired", "timed_out", "lost", "swept", "failed"];
const WIDTH = 480, HEIGHT = 110, HOUR_MS = 3600000;

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function chart(title, summary, most, draw) {
  const figure = make("figure");
  const picture = svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT + 18}`, role: "img", "aria-label": `${title}: ${summary}`});
  picture.append(svg("line", {x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "axis"}));
  draw(picture);
  picture.append(svg("text", {x: 0, y: 11}, most), svg("text", {x: 0, y: HEIGHT + 14}, "24 h ago"),
    svg("text", {x: WIDTH, y: HEIGHT + 14, class: "end"}, "now"));
  figure.append(make("figcaption", title), picture, make("p", summary));
  return figure;
}

export function show_hours(hours) {
  const first = Math.floor(now() / HOUR_MS) * HOUR_MS - 23 * HOUR_MS;
  const slots = Array.from({length: 24}, (_, n) => ({begins: new Date(first + n * HOUR_MS), outcomes: {}}));
  for (const hour of hours) {
    const n = Math.round((at(hour.begins) - first) / HOUR_MS);
    if (slots[n]) Object.assign(slots[n], hour, {begins: slots[n].begins});
  }
  const label = slot => slot.begins.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit", hourCycle: "h23"});
  const count = slot => Object.values(slot.outcomes).reduce((sum, n) => sum + n, 0);
  const most = Math.max(1, ...slots.map(count));
  const totals = OUTCOMES.map(word => [word, slots.reduce((sum, slot) => sum + (slot.outcomes[word] ?? 0), 0)]);
  const summary = totals.filter(([, n]) => n).map(([word, n]) => `${n} ${word}`).join(", ") || "nothing has ended";
  const operations = chart("Operations an hour", summary, `${most}`, picture => slots.forEach((slot, n) => {
    let y = HEIGHT;
    for (const word of OUTCOMES) {
      const height = (slot.outcomes[word] ?? 0) / most * (HEIGHT - 20);
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
  roles(table.parentNode);
}

function spread(title, what, slots, label) {
  const most = Math.max(0.1, ...slots.map(slot => slot[what]?.[1] ?? 0));
  const last = slots.findLast(slot => slot[what]);
  const summary = last ? `in the hour from ${label(last)} p50 ${span(last[what][0])}, p99 ${span(last[what][1])}` : "nothing has run";
  return chart(title, summary, span(most), picture => {
    [["p99", 1], ["p50", 0]].forEach(([name, which]) => {
      picture.append(svg("text", {x: 110 - 40 * which, y: 11, class: name}, name));
      const points = slots.map((slot, n) => slot[what] && [n * 20 + 10, HEIGHT - slot[what][which] / most * (HEIGHT - 20)]);
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
