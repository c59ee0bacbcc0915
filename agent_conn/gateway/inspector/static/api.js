// Requests to the gateway that this page came from.

/** Sends JSON; gives null, or the text of what went wrong. */
export async function send(method, path, body) {
  try {
    const response = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body ?? {}),
    });
    if (response.ok) return null;
    const answer = await response.json().catch(() => ({}));
    return answer.error ?? `The gateway answered ${response.status}.`;
  } catch {
    return "The gateway does not answer.";
  }
}

/** Gives the JSON at a path, or null where there is none. */
export async function read(path) {
  try {
    const response = await fetch(path);
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}
