// The gateway's server-sent events, for as long as the page is open.

import { refusal } from "./api.js";

const EVENTS = "/inspector/events";
const RETRY_MILLISECONDS = 1500;

/** Calls `on[event](data)` for each event, `onLive()`, and `onLost(why)`.
 *
 * `why` is "stopped" after the gateway's goodbye, "silent" without one, else why it refuses.
 */
export function listen(on, onLive, onLost) {
  const source = new EventSource(EVENTS);
  let why = "silent";
  for (const [name, handle] of Object.entries(on)) {
    source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  }
  source.addEventListener("goodbye", () => (why = "stopped"));
  source.addEventListener("open", () => {
    why = "silent";
    onLive();
  });
  source.addEventListener("error", async () => {
    onLost(why);
    // The browser tries again by itself, but not after an answer that is no stream.
    if (source.readyState !== EventSource.CLOSED) return;
    const refused = await refusal(EVENTS);
    if (refused !== null) onLost(refused);
    setTimeout(() => listen(on, onLive, onLost), RETRY_MILLISECONDS);
  });
}
