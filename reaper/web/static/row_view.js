// How a row, its host and its page are named.

export const page_of = id => `/row/${encodeURIComponent(id)}`;
export const host_name = host => host === null ? "master" : host;
export const address = (name, value) => {
  const query = new URLSearchParams(location.search);
  query.set(name, value);
  return `/?${query}`;
};

export function outcome(row) {
  const word = row.outcome ?? row.status;
  return {text: row.attempt > 1 ? `${word}, try ${row.attempt}` : word, class: `state ${word}`};
}
