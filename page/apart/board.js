// A table of buttons with one Tab stop: arrow keys move, Enter or a click presses, and pointing describes.
//
//   const board = GPT.parts.board("Parts", { onpress: (key) => {}, onpoint: (key) => {} });
//   board.build(["head 1", ...], [{ head: "Layer 1", cells: [{ key: "0.head.0", name: "Layer 1, head 1" }, ...] }, ...]);
//   board.shade("0.head.0", 0.4, "+0.40");           a part of the strongest colour, below 0 in blue, and its text

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;

  GPT.parts.board = (name, { onpress, onpoint }) => {
    const table = html("table", { class: "board", "aria-label": name });
    const buttons = new Map(); // key -> button
    let [rows, current] = [[], null];

    function button({ key, name: words, text }) {
      const made = html("button", { type: "button", tabindex: -1, "data-key": key, "aria-label": words },
        html("span", {}, text || ""));
      made.dataset.name = words;
      buttons.set(key, made);
      return made;
    }

    /** Fills the table anew. A cell is { key, name, text?, span? }, or { empty: true }; a head is a text or a cell. */
    function build(heads, lines) {
      const key = current && current.dataset.key;
      const hadFocus = table.contains(document.activeElement);
      buttons.clear();
      const cell = (each) => (each.empty ? html("td", {}) : html("td", { colspan: each.span || null }, button(each)));
      const head = (each) => html("th", { scope: "row" }, each.key ? button(each) : each);
      table.replaceChildren(
        html("thead", {}, html("tr", {}, heads.map((each) => html(each === "" ? "td" : "th", { scope: each === "" ? null : "col", class: each === "layer" && "is-corner" }, html("span", {}, each))))),
        html("tbody", {}, lines.map((line) => html("tr", {}, head(line.head), line.cells.map(cell)))),
      );
      rows = Array.from(table.tBodies[0].rows, (row) => Array.from(row.querySelectorAll("button"))).filter(({ length }) => length);
      stop(buttons.get(key) || (rows[0] && rows[0][0]));
      if (hadFocus && current) current.focus({ preventScroll: true });
    }

    /** Makes one button the Tab stop. */
    function stop(to) {
      if (current) current.setAttribute("tabindex", -1);
      current = to || null;
      if (current) current.setAttribute("tabindex", 0);
    }

    function shade(key, part, text) {
      const found = buttons.get(key);
      if (!found) return;
      found.style.setProperty("--strength", `${Math.round(100 * Math.min(1, Math.abs(part)))}%`);
      found.classList.toggle("is-minus", part < 0);
      found.firstChild.textContent = text;
      found.setAttribute("aria-label", text ? `${found.dataset.name}: ${text}` : found.dataset.name);
    }

    /** The column of a button on the screen, to move up and down. */
    const middle = (each) => each.getBoundingClientRect().left + each.offsetWidth / 2;

    function next(key) {
      const row = rows.findIndex((each) => each.includes(current));
      const at = rows[row].indexOf(current);
      if (key === "ArrowLeft") return rows[row][at - 1];
      if (key === "ArrowRight") return rows[row][at + 1];
      if (key === "Home") return rows[row][0];
      if (key === "End") return rows[row][rows[row].length - 1];
      const other = rows[row + { ArrowUp: -1, ArrowDown: 1 }[key]];
      if (!other) return undefined;
      const distance = (each) => Math.abs(middle(each) - middle(current));
      return other.reduce((near, each) => (distance(each) < distance(near) ? each : near));
    }

    table.addEventListener("keydown", (event) => {
      if (!/^(Arrow|Home|End)/.test(event.key) || !current) return;
      event.preventDefault();
      const to = next(event.key);
      if (!to) return;
      stop(to);
      to.focus();
    });
    const keyOf = ({ target }) => target.closest("button")?.dataset.key;
    table.addEventListener("click", (event) => {
      const key = keyOf(event);
      if (!key) return;
      stop(buttons.get(key));
      onpress(key);
    });
    const point = (event) => { if (keyOf(event)) onpoint(keyOf(event)); };
    table.addEventListener("pointerover", point);
    table.addEventListener("focusin", point);
    table.addEventListener("pointerleave", () => onpoint(null));

    return { element: html("div", { class: "scroll board-box" }, table), build, shade, get: (key) => buttons.get(key) };
  };
})();
