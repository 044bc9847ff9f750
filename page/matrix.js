// A matrix of attention weights, tokens by tokens; the pointer and the arrow keys move in it. The colour's strength is
// the square root of the weight, so that small weights can be distinguished; if `isFitted`, on a scale for each row, with a
// legend below the matrix.

var GPT = GPT || {};
(() => {
  "use strict";
  const { svg, html, chip, visible, spoken, percent, shade } = GPT.draw;
  const MOST = 32; // tokens that are shown at once
  const [LABEL, LETTER] = [8, 7.4]; // letters of a label; pixels of a letter

  /** show({ pieces, weight, token, key, drawn, head }): weight(row, column) from 0 to 1. The cells are filled again if
   *  `drawn` or `head` changes, and replaced if their number or size does; otherwise only the mark moves. onpeek: the pointer is on a cell, or has returned to the chosen
   *  one; onchoose: a cell was pressed, or reached with an arrow key. */
  GPT.parts.matrix = (name, { onchoose, onpeek, isFitted = false }) => {
    const element = html("div", { class: "matrix scroll" });
    const cut = html("p", { class: "note" });
    const scale = isFitted ? GPT.parts.shadeScale() : null;
    let [grid, mark, now, size, first] = [null, null, {}, 20, 0];
    let [form, cells, labels] = ["", [], []]; // number and size of the cells; cells[i][j] of row and column first + i, first + j

    const cellAt = (token, key) => cells[token - first]?.[key - first];
    const positionOf = (cell) => [Number(cell.dataset.row), Number(cell.dataset.column)];

    /** The largest weight of a row: the end of its scale. */
    function mostOf(weight, t) {
      let most = isFitted ? 0 : 1;
      for (let s = 0; isFitted && s <= t; s += 1) most = Math.max(most, weight(t, s));
      return most;
    }

    /** Shows the names of one row and one column in their colours, and the scale of the row. */
    function point(t, s) {
      for (const [role, index] of [["query", t], ["key", s]]) {
        element.querySelector(`.is-${role}`)?.classList.remove(`is-${role}`);
        element.querySelector(`[data-${role}="${index}"]`)?.classList.add(`is-${role}`);
      }
      if (scale) scale.show(["Row of ", chip(now.pieces[t]), ": "], mostOf(now.weight, t));
    }

    /** Shows other numbers: in the same cells, if as many of the same size are shown. */
    function fill({ pieces, weight, token }) {
      const shown = Math.min(MOST, pieces.length);
      first = Math.max(0, Math.min(pieces.length - shown, token - Math.floor(shown / 2)));
      const range = Array.from({ length: shown }, (_, i) => first + i);
      const names = range.map((t) => visible(pieces[t], LABEL));
      const side = Math.max(...names.map((name) => Array.from(name).length)) * LETTER + 8;
      size = Math.max(13, Math.min(34, Math.floor(((element.clientWidth || 420) - side - 2) / shown)));
      if (form !== `${shown} ${side} ${size}`) build(shown, side);
      form = `${shown} ${side} ${size}`;
      const words = range.map((t) => spoken(pieces[t]));
      cells.forEach((row, i) => {
        const most = mostOf(weight, range[i]);
        row.forEach((cell, j) => {
          const share = j > i ? 0 : weight(range[i], range[j]);
          if (j <= i) put(cell, "style", `fill-opacity: ${shade(share, most).toFixed(3)}`);
          put(cell, "data-row", range[i]);
          put(cell, "data-column", range[j]);
          put(cell, "aria-label", `${words[i]} attends to ${words[j]}: ${j > i ? "masked" : percent(share)}`);
        });
      });
      labels.forEach((pair, i) => {
        pair.forEach((label, j) => {
          put(label, ["data-query", "data-key"][j], range[i]);
          label.textContent = names[i];
        });
      });
      cut.textContent = shown < pieces.length ? `${shown} of your ${pieces.length} tokens are shown, around the chosen one.` : "";
    }

    /** Sets an attribute that has changed: reading is faster than writing. */
    function put(node, name, value) {
      if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
    }

    /** Makes the cells of a matrix of `shown` tokens, with `side` pixels for the names at its left and top. */
    function build(shown, side) {
      const at = (index) => side + index * size;
      const numbers = Array.from({ length: shown }, (_, i) => i);
      const box = { role: "gridcell", tabindex: -1, width: size - 1, height: size - 1, rx: 2 };
      cells = numbers.map((i) =>
        numbers.map((j) => svg("rect", { ...box, class: j > i ? "cell is-masked" : "cell", x: at(j) + 0.5, y: at(i) + 0.5 })),
      );
      labels = numbers.map((i) => [
        svg("text", { x: side - 6, y: at(i) + size / 2 + 4, "text-anchor": "end" }),
        svg("text", { transform: `translate(${at(i) + size / 2 + 4} ${side - 6}) rotate(-90)` }),
      ]);
      mark = svg("rect", { class: "mark", width: size, height: size, rx: 3 });
      const rows = cells.map((row) => svg("g", { role: "row" }, row));
      grid = svg("g", { role: "grid", "aria-label": name, "aria-rowcount": shown, "aria-colcount": shown }, rows);
      const all = side + shown * size + 2;
      const picture = svg("svg", { width: all, height: all }, svg("g", { "aria-hidden": "true" }, labels), grid, mark);
      element.replaceChildren(picture, cut, ...(scale ? [scale.element] : []));
      listen();
    }

    function listen() {
      const peek = (t, s) => {
        point(t, s);
        onpeek(t, s);
      };
      grid.addEventListener("pointerover", ({ target }) => target.dataset.row && peek(...positionOf(target)));
      grid.addEventListener("pointerleave", () => peek(now.token, now.key));
      grid.addEventListener("click", ({ target }) => target.dataset.row && onchoose(...positionOf(target)));
      grid.addEventListener("keydown", (event) => {
        const last = now.pieces.length - 1;
        const [token, key] = [now.token, now.key];
        const to = {
          ArrowLeft: [token, key - 1],
          ArrowRight: [token, key + 1],
          ArrowUp: [token - 1, key],
          ArrowDown: [token + 1, key],
          Home: [token, 0],
          End: [token, token],
        }[event.key];
        if (!to) return;
        event.preventDefault();
        onchoose(...to.map((index) => Math.max(0, Math.min(last, index))));
      });
    }

    function show(next) {
      const isSame =
        grid &&
        next.drawn === now.drawn &&
        next.head === now.head &&
        element.clientWidth === now.width &&
        cellAt(next.token, next.key);
      const wanted = { ...next, width: element.clientWidth };
      const hadFocus = Boolean(grid && grid.contains(document.activeElement));
      if (!isSame) fill(next);
      grid.querySelector("[tabindex='0']")?.setAttribute("tabindex", -1);
      now = wanted;
      point(now.token, now.key);
      const isShown = Boolean(cellAt(now.token, now.key)); // in a long text the key may be too far from the query
      const nearest = Math.min(Math.max(first, now.key), first + Math.min(MOST, now.pieces.length) - 1);
      const cell = cellAt(now.token, nearest);
      mark.setAttribute("visibility", isShown ? "visible" : "hidden");
      cell.setAttribute("tabindex", 0);
      mark.setAttribute("x", Number(cell.getAttribute("x")) - 0.5);
      mark.setAttribute("y", Number(cell.getAttribute("y")) - 0.5);
      if (hadFocus && document.activeElement !== cell) cell.focus({ preventScroll: true });
    }
    return { element, show };
  };
})();
