// The server's clock, and how times are shown.

import {make} from "./elements.js";

export function span(seconds) {
  if (seconds === null || Number.isNaN(seconds)) return "";
  const s = Math.max(0, seconds);
  if (s < .0995) return `${Math.round(s * 1000)} ms`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (s >= 2 * size) return `${Math.floor(s / size)} ${unit}`;
  return `${Math.floor(s)} s`;
}

let ahead_ms = 0; // the server's clock, minus this one
export const set_clock = text => { ahead_ms = at(text) - Date.now(); };
export const now = () => Date.now() + ahead_ms;
export const at = text => text === null ? NaN : Date.parse(text);
export const between = (from, to) => (at(to) - at(from)) / 1000;
export const since = from => (now() - at(from)) / 1000;

const format = new Intl.DateTimeFormat([], {timeStyle: "medium", hourCycle: "h23"}); // made once: each takes a while

export function clock(text) {
  const when = new Date(text);
  const time = format.format(when);
  return when.toDateString() === new Date(now()).toDateString() ? time : `${when.toLocaleDateString()} ${time}`;
}

export function time_of(text) {
  return make("time", clock(text), {dateTime: text, title: text});
}
