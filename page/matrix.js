// A matrix of attention weights, tokens by tokens; the pointer and the arrow keys move in it. The colour's strength is
// the square root of the weight, so that small weights can be distinguished; if `isFitted`, on a scale for each row, with a
// legend below the matrix.

var GPT = GPT || {};
(() => {
  "use strict";
  const { svg, html, chip, visible, spoken, percent, shade } = GPT.draw;
  const MOST = 32; // tokens that are shown at once
  const [LABEL, LETTER] = [8, 7.4]; // letters of a label; pixels of a letter

  /** show({ pieces, weight, token, key, drawn, head }): weight(row, column) from 0 to 1. The matrix is rebuilt if `drawn`
   *  or `head` changes; otherwise only the mark moves. onpeek: the pointer is on a cell, or has returned to the chosen
   *  one; onchoose: a cell was pressed, or reached with an arrow key. */
  GPT.parts.matrix = (name, { onchoose, onpeek, isFitted = false }) => {
    const element = html("div", { class: "matrix scroll" });
    const cut = html("p", { class: "note" });
    const scale = isFitted ? GPT.parts.shadeScale() : null;
    let [grid, mark, now, size, first] = [null, null, {}, 20, 0];

    const cellAt = (token, key) => grid.querySelector(`[data-row="${token}"][data-column="${key}"]`);
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

    function build({ pieces, weight, token }) {
      const shown = Math.min(MOST, pieces.length);
      first = Math.max(0, Math.min(pieces.length - shown, token - Math.floor(shown / 2)));
      const range = Array.from({ length: shown }, (_, i) => first + i);
      const longest = Math.max(...range.map((t) => Array.from(visible(pieces[t], LABEL)).length));
      const side = longest * LETTER + 8;
      size = Math.max(13, Math.min(34, Math.floor(((element.clientWidth || 420) - side - 2) / shown)));
      const at = (index) => side + (index - first) * size;
      const rows = range.map((t) => {
        const most = mostOf(weight, t);
        return svg(
          "g",
          { role: "row" },
          range.map((s) => cell(pieces, weight, t, s, at, most)),
        );
      });
      mark = svg("rect", { class: "mark", width: size, height: size, rx: 3 });
      grid = svg("g", { role: "grid", "aria-label": name, "aria-rowcount": shown, "aria-colcount": shown }, rows);
      const names = svg(
        "g",
        { "aria-hidden": "true" },
        range.map((t) => labels(visible(pieces[t], LABEL), t, at(t), side)),
      );
      const all = side + shown * size + 2;
      const hadFocus = element.contains(document.activeElement);
      element.replaceChildren(svg("svg", { width: all, height: all }, names, grid, mark), cut, ...(scale ? [scale.element] : []));
      const words = `${shown} of your ${pieces.length} tokens are shown, around the chosen one.`;
      cut.textContent = shown < pieces.length ? words : "";
      listen();
      return hadFocus;
    }

    /** Row t, column s. */
    function cell(pieces, weight, t, s, at, most) {
      const isMasked = s > t;
      return svg("rect", {
        role: "gridcell",
        tabindex: -1,
        "data-row": t,
        "data-column": s,
        x: at(s) + 0.5,
        y: at(t) + 0.5,
        width: size - 1,
        height: size - 1,
        rx: 2,
        class: isMasked ? "cell is-masked" : "cell",
        style: isMasked ? null : `fill-opacity: ${shade(weight(t, s), most).toFixed(3)}`,
        "aria-label": `${spoken(pieces[t])} attends to ${spoken(pieces[s])}: ${isMasked ? "masked" : percent(weight(t, s))}`,
      });
    }

    /** A token's name beside its row and above its column. */
    function labels(words, t, at, side) {
      const rotated = `translate(${at + size / 2 + 4} ${side - 6}) rotate(-90)`;
      return [
        svg("text", { "data-query": t, x: side - 6, y: at + size / 2 + 4, "text-anchor": "end" }, words),
        svg("text", { "data-key": t, transform: rotated }, words),
      ];
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
      let hadFocus = grid && grid.contains(document.activeElement);
      if (!isSame) hadFocus = build(next) || hadFocus;
      else grid.querySelector("[tabindex='0']").setAttribute("tabindex", -1);
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
