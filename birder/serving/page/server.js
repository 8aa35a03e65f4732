// Talking to the server: the token, its refusals (RFC 9457), and waiting when it asks for time.

const TRIES = 8;
const LONGEST_WAIT = 60; // seconds

/** The server refused, and says why. */
export class Refused extends Error {
  constructor({ status, code = "", detail = "", title = "", after = 0, reason = "" }) {
    super(detail || title || `The server answered with the status ${status}.`);
    Object.assign(this, { status, code, after, reason });
  }
}

/** Nobody answers. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer.");
  }
}

/** Events: `hold` (detail: {seconds, why}) when the server wants time. */
export const server = new EventTarget();

/** Asks a person for the token, and gives it or null; set by the page. `wrong` if there was one, which was refused. */
server.askToken = async () => null;

let token = readToken();
let tokenAsked = null;
let heldUntil = 0;

/** The token from the address, which it then leaves: addresses are shared and remembered. */
function readToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found !== null) {
    keepToken(found);
    history.replaceState(null, "", location.pathname + location.search);
    return found;
  }
  try { return sessionStorage.getItem("birder.token"); } catch { return null; }
}

function keepToken(text) {
  try { sessionStorage.setItem("birder.token", text); } catch { /* then it is asked for again */ }
}

/**
 * Ask, and wait and ask again where the server wants that.
 *
 * @throws Refused, Unreachable, or an AbortError
 */
export async function ask(path, { query = {}, accept = "application/json", signal, ...options } = {}) {
  const address = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== undefined) address.searchParams.set(name, value);
  for (let tries = 1; ; ) {
    await held(signal);
    const used = token;
    const response = await answerTo(address, used, { accept, signal, ...options });
    if (response.ok) return response;
    const refused = await refusalOf(response);
    if (refused.status === 401 && await newToken(used)) continue;
    if (!(refused.status === 429 || refused.status === 503) || tries++ >= TRIES) throw refused;
    hold(refused);
  }
}

/** A token that no request can carry, as tokens are printable ASCII, is refused before it is sent. */
async function answerTo(address, used, { accept, ...options }) {
  if (used && !/^[ -~]+$/.test(used)) return Response.json({ detail: "This is not the token: it has letters that no token has." }, { status: 401 });
  const headers = used ? { Accept: accept, Authorization: `Bearer ${used}` } : { Accept: accept };
  try {
    return await fetch(address, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable();
  }
}

export const askJson = async (...how) => (await ask(...how)).json();

/** Whether anybody answers. */
export async function isUp() {
  try {
    return (await fetch(new URL("healthz", document.baseURI), { cache: "no-store", credentials: "omit" })).ok;
  } catch {
    return false;
  }
}

async function refusalOf(response) {
  const after = Number(response.headers.get("Retry-After")) || 0;
  let problem = {};
  try { problem = await response.json(); } catch { /* something between us and the server, then */ }
  return new Refused({ ...problem, status: response.status, after });
}

/** Nobody asks before the time is over: a server that is busy is not helped by the next request. */
function hold({ after, message: why }) {
  const seconds = Math.min(after || 2, LONGEST_WAIT);
  heldUntil = Math.max(heldUntil, Date.now() + 1000 * seconds);
  server.dispatchEvent(new CustomEvent("hold", { detail: { seconds, why } }));
}

async function held(signal) {
  for (let left; (left = heldUntil - Date.now()) > 0; ) await pause(left, signal);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, milliseconds);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Whether there is another token than the one that was refused; many requests ask a person once. */
async function newToken(used) {
  if (token !== used) return true;
  tokenAsked ??= server.askToken(used !== null).finally(() => { tokenAsked = null; });
  const given = await tokenAsked;
  if (given === null) return false;
  token = given;
  keepToken(given);
  return true;
}
