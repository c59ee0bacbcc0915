// What to do when there is nothing to see yet.

import { el } from "./dom.js";

/** Tells how a client finds this gateway. */
export function noConnections() {
  const commands = [
    `export LIVEKIT_INFERENCE_URL=${location.origin}/v1`,
    "export LIVEKIT_API_KEY=devkey LIVEKIT_API_SECRET=secret",
  ].join("\n");
  const trial = `python examples/voice_roundtrip.py --url ${location.origin}/v1`;
  return [
    el("h2", {}, "No connection yet"),
    el("p", {}, "Point an agent at this gateway, in the shell that starts it:"),
    el("pre", { tabindex: "0" }, el("code", {}, commands)),
    el(
      "p",
      { class: "muted" },
      "Any key and secret will do, unless the gateway was started with its own; then take those that it printed.",
    ),
    el("p", {}, "Or have one sentence spoken and heard:"),
    el("pre", { tabindex: "0" }, el("code", {}, trial)),
  ];
}

/** Tells that the filters let nothing through. */
export function noMatches(onClear) {
  const clear = el("button", { type: "button" }, "Show all");
  clear.addEventListener("click", onClear);
  return [el("h2", {}, "Nothing matches the filters"), clear];
}
