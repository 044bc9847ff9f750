// A table of coloured cells with one Tab stop: the pointer shows what a cell says, and a click or the arrow keys choose one.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;
  const EDGE = 4; // pixels beside a cell that was scrolled into view

  /** grid("Name", { corner, rows, columns, cell, describe, onchoose }): `rows` and `columns` are headings, cell(row, column)
   *  gives { content, strength, isMinus?, isMarked?, words }, describe(row, column) what is below the table. */
  GPT.parts.grid = (name, { corner, rows, columns, cell, describe, onchoose }) => {
    const readout = html("p", { class: "readout" });
    const made = rows.map((_, row) => columns.map((_, column) => box(cell(row, column), row, column)));
    let [at, chosen] = [[0, 0], null];

    function box({ content, strength, isMinus, isMarked, words }, row, column) {
      const found = html("td", { role: "gridcell", tabindex: -1, "data-row": row, "data-column": column }, content);
      found.setAttribute("aria-label", words);
      found.style.setProperty("--strength", `${Math.round(100 * Math.min(1, strength))}%`);
      found.classList.toggle("is-minus", Boolean(isMinus));
      found.classList.toggle("is-marked", Boolean(isMarked));
      return found;
    }

    const heading = (scope, content) =>
      html("th", { scope, role: scope === "row" ? "rowheader" : "columnheader" }, content);
    const heads = columns.map((column) => heading("col", column));
    const lines = made.map((cells, row) => html("tr", { role: "row" }, heading("row", rows[row]), cells));
    const body = html("tbody", { role: "rowgroup" }, lines);
    const top = html("thead", { role: "rowgroup" }, html("tr", { role: "row" }, heading("col", corner), heads));
    const scroll = html("div", { class: "scroll" });
    const table = html("table", { class: "grid", role: "grid", "aria-label": name }, top, body);

    const placeOf = (target) => {
      const found = target.closest("td");
      return found && [Number(found.dataset.row), Number(found.dataset.column)];
    };
    const say = (row, column) => readout.replaceChildren(...[describe(row, column)].flat(Infinity));

    /** Moves the mark, and the Tab stop. */
    function move(row, column) {
      if (chosen) {
        chosen.setAttribute("tabindex", -1);
        chosen.classList.remove("is-chosen");
        heads[at[1]].classList.remove("is-chosen");
      }
      at = [row, column];
      chosen = made[row][column];
      chosen.setAttribute("tabindex", 0);
      chosen.classList.add("is-chosen");
      heads[column].classList.add("is-chosen");
      reveal();
      say(row, column);
    }

    /** Scrolls sideways until the chosen cell is in view. */
    function reveal() {
      const [left, right] = [chosen.offsetLeft, chosen.offsetLeft + chosen.offsetWidth];
      const names = lines[0].firstChild.offsetWidth; // the row headings stay at the left
      if (left - names < scroll.scrollLeft) scroll.scrollLeft = left - names;
      if (right > scroll.scrollLeft + scroll.clientWidth) scroll.scrollLeft = right - scroll.clientWidth + EDGE;
    }

    function choose(row, column) {
      move(row, column);
      onchoose(row, column);
    }
    body.addEventListener("pointerover", ({ target }) => placeOf(target) && say(...placeOf(target)));
    body.addEventListener("pointerleave", () => say(...at));
    body.addEventListener("click", ({ target }) => placeOf(target) && choose(...placeOf(target)));
    body.addEventListener("keydown", (event) => {
      const [row, column] = at;
      const to = {
        ArrowLeft: [row, column - 1],
        ArrowRight: [row, column + 1],
        ArrowUp: [row - 1, column],
        ArrowDown: [row + 1, column],
        Home: [row, 0],
        End: [row, columns.length - 1],
      }[event.key];
      if (!to) return;
      event.preventDefault();
      const within = (value, number) => Math.max(0, Math.min(number - 1, value));
      choose(within(to[0], rows.length), within(to[1], columns.length));
      chosen.focus({ preventScroll: false });
    });
    scroll.append(table);
    return { element: html("div", {}, scroll, readout), move, reveal, at: () => at };
  };
})();
