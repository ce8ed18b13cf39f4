// The frame of the dashboard: who is logged in, which page is shown, what is said to the reader.
//
// A page is a module in /static/pages/ with a default export { path, title, Page }, listed below.
// `Page` is a component; it gets { api, params, say }: `params` is the query of the address as
// URLSearchParams, `say(text, kind)` shows a line ("info" or "error") to readers of all kinds.

import { html, render, useEffect, useState } from "/static/vendor/htm-preact-3.1.1.mjs";
import { api, onLoggedOut } from "/static/api.mjs";

const PAGES = ["overview", "escalations", "fleet", "review", "rollouts", "drift", "control", "audit"];

const pages = await Promise.all(
  PAGES.map(async (name) => (await import(`/static/pages/${name}.mjs`)).default),
);

function here() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  return { path: path || "/", params: new URLSearchParams(query) };
}

// A token in the address is used once and leaves no trace in the history.
function tokenInAddress() {
  const found = /^#token=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (found) history.replaceState(null, "", "/");
  return found && found[1];
}

function LogIn({ onDone }) {
  const [problem, setProblem] = useState("");
  const enter = async (event) => {
    event.preventDefault();
    try {
      await api.logIn(new FormData(event.target).get("token").trim());
      onDone();
    } catch (error) {
      setProblem(error.message);
    }
  };
  return html`<main class="login">
    <h1>Tierwise</h1>
    <form onSubmit=${enter}>
      <label for="token">Token</label>
      <input id="token" name="token" type="password" autocomplete="off" required autofocus />
      <p class="hint">
        It is in <code>operator.json</code> in the state folder of the cloud tier.
      </p>
      <button type="submit">Open</button>
      <p role="alert" class="problem">${problem}</p>
    </form>
  </main>`;
}

function Frame() {
  const [place, setPlace] = useState(here());
  const [line, setLine] = useState({ text: "", kind: "info" });
  useEffect(() => {
    const moved = () => {
      setPlace(here());
      document.getElementById("main")?.focus({ preventScroll: true });
      scrollTo(0, 0);
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const page = pages.find((one) => one.path === place.path) || pages[0];
  // On a phone the list of pages is wider than the screen.
  useEffect(() => {
    document.querySelector("nav a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [page]);
  document.title = `${page.title} – Tierwise`;
  const say = (text, kind = "info") => setLine({ text, kind });
  return html`<a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      document.getElementById("main").focus();
    }}>Skip to content</a>
    <header>
      <a class="brand" href="#/"><img src="/static/icon.svg" alt="" width="28" height="28" /> Tierwise</a>
      <nav aria-label="Pages">
        ${pages.map(
          (one) => html`<a
            href=${`#${one.path}`}
            aria-current=${one === page ? "page" : undefined}
          >${one.title}</a>`,
        )}
      </nav>
      <button class="quiet" onClick=${async () => {
        await api.logOut();
        location.reload();
      }}>Log out</button>
    </header>
    <p id="line" role="status" class=${line.kind}>${line.text}</p>
    <main id="main" tabindex="-1">
      <${page.Page} key=${page.path} api=${api} params=${place.params} say=${say} />
    </main>`;
}

function App() {
  const [isIn, setIn] = useState(null);
  useEffect(() => {
    onLoggedOut(() => setIn(false));
    const begin = async () => {
      const token = tokenInAddress();
      if (token) await api.logIn(token);
      await api.get("/api/v1/session");
      setIn(true);
    };
    begin().catch(() => setIn(false));
  }, []);
  if (isIn === null) return html`<main class="login"><p>Opening …</p></main>`;
  return isIn ? html`<${Frame} />` : html`<${LogIn} onDone=${() => setIn(true)} />`;
}

render(html`<${App} />`, document.getElementById("app"));
