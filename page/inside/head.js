// One head, named by --head: for each token what it attends to most and which next tokens its result favours.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, percent } = GPT.draw;
  const { report, headName } = GPT.inside;

  GPT.picture("head", {
    mount(element) {
      const { layer, head, rows } = report.head;
      document.getElementById("which").textContent = headName(layer, head);
      const headings = ["token", "attends most to", "makes more likely", "makes less likely"];
      const top = html("tr", {}, headings.map((name) => html("th", { scope: "col" }, name)));
      const table = html("table", { class: "writes" }, html("thead", {}, top), html("tbody", {}, rows.map(line)));
      const about = { class: "scroll", tabindex: 0, role: "region", "aria-label": "What the head does for each token" };
      element.append(html("div", about, table));
    },
    update() {},
  });

  function line({ key, weight, up, down }, token) {
    const to = [key === token ? "itself" : chip(report.prompt[key]), html("small", {}, ` ${percent(weight)}`)];
    const cells = [to, favoured(up), favoured(down)].map((content) => html("td", {}, content));
    return html("tr", {}, html("th", { scope: "row" }, chip(report.prompt[token])), cells);
  }

  const favoured = (found) =>
    found.flatMap(({ piece, value }) => [chip(piece), html("small", {}, ` ${number(value)} `)]);
})();
