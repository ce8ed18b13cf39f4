// Asks the operators' port. Whoever is not logged in any more is told by `onLoggedOut`.

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let loggedOut = () => {};
export function onLoggedOut(callback) {
  loggedOut = callback;
}

async function ask(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, "unreachable", "The cloud tier does not answer. Is it running?");
  }
  const text = await response.text();
  let said = null;
  try {
    said = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(response.status, "not_json", "The answer is not understood.");
  }
  if (response.ok) return said;
  if (response.status === 401) loggedOut();
  const error = (said && said.error) || {};
  throw new ApiError(response.status, error.code || "", error.message || response.statusText);
}

export const api = {
  get: (path) => ask("GET", path),
  post: (path, body = {}) => ask("POST", path, body),
  delete: (path) => ask("DELETE", path),
  logIn: (token) => ask("POST", "/api/v1/session", { token }),
  logOut: () => ask("DELETE", "/api/v1/session"),
  // Server-sent events; gives a function that ends them. `handlers` maps names to functions of a value.
  events(path, handlers, onState = () => {}) {
    const source = new EventSource(path);
    source.onopen = () => onState(true);
    source.onerror = () => onState(false);
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
    return () => source.close();
  },
};
