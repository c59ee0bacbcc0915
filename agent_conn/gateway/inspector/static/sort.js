// The order of the lines: by any column, the newest first where two are alike.

import { PIPS } from "./levels.js";
import { opening, waited } from "./waterfall.js";

// What a column sorts by, of a line and its current connection.
const KEYS = {
  number: (line) => line.number,
  level: (line, one) => PIPS[one.level] ?? -1,
  state: (line, one) => `${one.state} ${one.status ?? ""} ${one.code ?? ""}`,
  ids: (line, one) => one.agent ?? one.room ?? one.job ?? "",
  path: (line, one) => `${one.path ?? ""} ${one.model ?? ""}`,
  client: (line, one) => one.client ?? "",
  wait: (line, one, now) => waited(one.times, now) ?? -1,
  phases: (line, one, now) => opening(one.times, now),
  frames: (line) => line.counts[0] + line.counts[1],
  bytes: (line) => line.counts[2] + line.counts[3],
  began: (line, one) => one.times.accepted ?? one.times.requested,
};

export const NEWEST = { column: "number", descending: true };

/** What a click on `column`'s head asks for: the most first, or what was there turned round. */
export function turned(sort, column) {
  return { column, descending: sort.column === column ? !sort.descending : true };
}

/** The rows in order; one whose line is gone comes last. */
export function inOrder(rows, { column, descending }, now) {
  const keyed = rows.map((row) => ({ row, key: keyOf(row.line, column, now) }));
  const sign = descending ? -1 : 1;
  keyed.sort((a, b) => sign * compare(a.key, b.key) || b.row.line.number - a.row.line.number);
  return keyed.map(({ row }) => row);
}

function keyOf(line, column, now) {
  return line.members.size ? KEYS[column](line, line.current, now) : -1;
}

function compare(a, b) {
  return a < b ? -1 : Number(a > b);
}
