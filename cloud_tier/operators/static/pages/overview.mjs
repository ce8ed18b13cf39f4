// Where everything is and how it goes.

import { html } from "/static/vendor/htm-preact-3.1.1.mjs";

function Overview() {
  return html`<h1>Overview</h1>`;
}

export default { path: "/", title: "Overview", Page: Overview };
