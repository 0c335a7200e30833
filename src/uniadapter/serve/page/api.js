// The server's answers; every error has a line for people.

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function read(response) {
  let body = null;
  try { body = await response.json(); } catch { /* no JSON: a proxy's page, say */ }
  if (!response.ok) throw new Refused(response.status, body?.error ?? `the server answered ${response.status}`);
  return body;
}

async function call(path, options = {}, tries = 3) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "the server does not answer: is it still running?");
  }
  if (response.status === 503 && tries > 1) { // busy: it says when to come again
    await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After") ?? 1)));
    return call(path, options, tries - 1);
  }
  return read(response);
}

export const describe = () => call("api/index");

export const search = (asked, signal) => call(`api/search?${new URLSearchParams(asked)}`, { signal });

const post = (path, body) => call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const ask = (item, question, adapters) => post("api/ask", { item, question, adapters });

export const caption = (item, adapters) => post("api/caption", { item, adapters });

export const why = (item, text, adapter, task) => post("api/why", { item, text, adapter, task });

export const upload = (file) => call(`api/upload?${new URLSearchParams({ name: file.name })}`, { method: "POST", body: file });
