// The inspector's page: events come in, the store takes them, what changed is drawn once a frame.

import { read, send } from "./api.js";
import { setAttribute, setHidden, setText, el } from "./dom.js";
import { Drawer } from "./drawer.js";
import { noConnections, noMatches } from "./empty.js";
import { count } from "./format.js";
import { Gone } from "./gone.js";
import { Grid } from "./grid.js";
import { STATES, Store } from "./store.js";
import { listen } from "./stream.js";
import { Summary } from "./summary.js";
import { legend } from "./waterfall.js";

const byId = (id) => document.getElementById(id);
const store = new Store();
const grid = new Grid(byId("grid"), store, (line) => {
  grid.select(line);
  drawer.showLine(line);
});
const drawer = new Drawer(store, (line) => {
  grid.select(null);
  if (line === null) byId("faults-next").focus();
  else grid.focus(line);
});
const gone = new Gone();
const summary = new Summary((level, shown) => {
  if (shown) grid.filters.levels.add(level);
  else grid.filters.levels.delete(level);
  refilter();
});

let asked = false;
let emptyFor = null;

function drawSoon() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(draw);
}

function draw() {
  asked = false;
  const taken = store.take();
  offerPaths();
  grid.update(taken);
  if (store.status) summary.update(store.status.levels);
  drawer.update(taken.changed, taken.counted);
  drawShown();
  drawPending();
}

function drawShown() {
  const lines = store.lines.size;
  const { givenUp = 0, mostKept = 0 } = store.status ?? {};
  const lost = givenUp ? `; ${count(givenUp)} older not kept (bound ${count(mostKept)})` : "";
  setText(byId("shown-count"), `${count(grid.shown)} of ${count(lines)} shown${grid.failed ? ", " : ""}`);
  setText(byId("failed-count"), grid.failed ? `${count(grid.failed)} failed` : "");
  setText(byId("lost-count"), lost);
  const kind = store.status === null || grid.shown ? null : lines ? "matches" : "connections";
  setHidden(byId("empty"), kind === null);
  setHidden(byId("grid"), kind !== null);
  setHidden(byId("legend"), kind !== null);
  if (kind !== emptyFor && kind === "matches") byId("empty").replaceChildren(...noMatches(clearFilters));
  if (kind !== emptyFor && kind === "connections") showCommands();
  emptyFor = kind;
}

async function showCommands() {
  const access = await read("/inspector/access");
  if (emptyFor === "connections") byId("empty").replaceChildren(...noConnections(access));
}

function drawPending() {
  const waiting = store.status?.faults.length ?? 0;
  setHidden(byId("pending-count"), waiting === 0);
  setText(byId("pending-count"), `${waiting} waiting`);
}

function offerPaths() {
  const select = byId("filter-path");
  const offered = new Set([...select.options].map((option) => option.value));
  for (const path of [...store.paths].sort()) {
    if (!offered.has(path)) select.append(el("option", { value: path }, path));
  }
}

function refilter() {
  grid.applyFilters();
  drawShown();
}

function clearFilters() {
  grid.filters.levels.clear();
  for (const card of byId("levels").children) setAttribute(card, "aria-pressed", "false");
  for (const name of ["path", "state", "text"]) {
    grid.filters[name] = "";
    byId(`filter-${name}`).value = "";
  }
  refilter();
  grid.focus(null);
}

byId("legend").append(...legend());
byId("gateway").textContent = location.host;
byId("filter-state").append(...STATES.map((state) => el("option", { value: state }, state)));
for (const name of ["path", "state"]) {
  byId(`filter-${name}`).addEventListener("change", (event) => {
    grid.filters[name] = event.target.value;
    refilter();
  });
}
byId("filter-text").addEventListener("input", (event) => {
  grid.filters.text = event.target.value.trim().toLowerCase();
  refilter();
});
byId("faults-next").addEventListener("click", () => {
  grid.select(null);
  drawer.showFaults();
});
byId("clear").addEventListener("click", () => send("DELETE", "/inspector/connections"));
// What is not there any more grows no older.
setInterval(() => gone.lost || grid.tick(), 1000);
listen(
  {
    reset: () => store.reset(),
    rows: (rows) => store.rows(rows),
    counts: (counts) => store.counts(counts),
    gone: (numbers) => store.gone(numbers),
    status: (status) => {
      store.setStatus(status);
      drawSoon();
    },
  },
  () => gone.showLive(),
  (why) => gone.showLost(why),
);
