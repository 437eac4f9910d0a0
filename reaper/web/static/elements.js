// Whatever comes from the server becomes text, never markup: there is no innerHTML here, and the page's
// Content-Security-Policy (Trusted Types) forbids it.

export const $ = id => document.getElementById(id);

export function make(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function say_alert(text) {
  set($("alert"), text);
  $("alert").hidden = !text;
}
