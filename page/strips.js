// Strips: vectors as rows of coloured numbers, and sums term by term, with one cursor that the pointer and the arrow keys move.

(() => {
  "use strict";
  const { html, svg, paint, palette, largest } = GPT.draw;
  const TERM = 60; // milliseconds for each term while a sum is played

  /** Vectors as strips of colour, one below the other, with one cursor over all of them. The reader moves it with the
   *  pointer or the arrow keys. show(rows, describe): rows [{ label, values, most?, colour?, isRooted? }] of equal length;
   *  describe(column) gives the values of a column in words. `most` is the end of the colour scale; without it, all rows use
   *  the same scale. `colour` (query, key, value, stream) is that of numbers above 0. With `isRooted` the colour's strength is
   *  the square root of a number's part of `most`, so that small numbers stay visible. A row { label, sums } shows how the
   *  numbers of `sums` add up, from left to right: those up to the cursor in full colour. play() moves the cursor over them. */
  function strips(name, colour = "accent") {
    const table = html("div", { class: "strips-rows" });
    const output = html("p", { class: "readout" });
    const term = colour === "accent" ? null : colour;
    const slider = html("div", { class: "strips", role: "slider", tabindex: 0, "aria-label": name, "data-term": term }, table);
    let [rows, columns, column, describe, playing] = [[], 1, null, () => "", null];

    function move(to) {
      column = Math.max(0, Math.min(columns - 1, to));
      for (const term of table.querySelectorAll(".sums rect")) {
        term.classList.toggle("is-later", Number(term.dataset.column) > column);
      }
      for (const cursor of table.querySelectorAll(".strips-cursor")) {
        Object.assign(cursor.style, { left: `${(100 * column) / columns}%`, width: `max(3px, ${100 / columns}%)` });
      }
      output.replaceChildren(...[describe(column)].flat());
      slider.setAttribute("aria-valuemin", 1);
      slider.setAttribute("aria-valuemax", columns);
      slider.setAttribute("aria-valuenow", column + 1);
      slider.setAttribute("aria-valuetext", output.textContent);
    }

    function point({ clientX }) {
      const box = table.querySelector(".strips-strip").getBoundingClientRect();
      const to = Math.floor(((clientX - box.left) / box.width) * columns);
      if (to >= 0 && to < columns && to !== column) stopAt(to);
    }
    function stopAt(to) {
      clearInterval(playing);
      playing = null;
      move(to);
    }
    /** From the first column to the last; at once if the reader wants no motion, or presses again. */
    function play() {
      const isStill = playing || matchMedia("(prefers-reduced-motion: reduce)").matches;
      stopAt(isStill ? columns - 1 : 0);
      if (!isStill) playing = setInterval(() => (column < columns - 1 ? move(column + 1) : stopAt(column)), TERM);
    }
    slider.addEventListener("pointermove", point);
    slider.addEventListener("pointerdown", point);
    slider.addEventListener("keydown", (event) => {
      const to = {
        ArrowLeft: column - 1,
        ArrowDown: column - 1,
        ArrowRight: column + 1,
        ArrowUp: column + 1,
        PageDown: column - 10,
        PageUp: column + 10,
        Home: 0,
        End: columns - 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      stopAt(to);
    });
    function show(given, inWords) {
      clearInterval(playing);
      [rows, columns, describe, playing] = [given, given[0].values.length, inWords, null];
      const common = largest(...given.flatMap(({ values }) => (values ? [values] : [])));
      const style = (row) => row.colour && `color: var(--${row.colour})`;
      table.replaceChildren(
        ...rows.flatMap((row) => {
          const { label, values, most } = row;
          const canvas = row.sums ? sums(row.sums) : html("canvas", { "aria-hidden": "true" });
          const root = (x) => Math.sign(x) * Math.sqrt(Math.abs(x) / (most || common));
          const [painted, end] = row.isRooted ? [values.map(root), 1] : [values, most || common];
          if (values) paint(canvas, painted, columns, end, palette(row.colour || colour));
          return [
            html("span", { class: "strips-label", style: style(row), "data-term": row.colour }, label),
            html("div", { class: "strips-strip", "data-term": row.colour }, canvas, html("div", { class: "strips-cursor" })),
          ];
        }),
      );
      const isSum = rows.some((row) => row.sums); // a sum is first shown whole
      move(column ?? (isSum ? columns - 1 : 0));
    }
    return { element: html("div", { class: "strips-box" }, slider, output), show, play };
  }

  /** Numbers that add up, from left to right: each begins at the height where the one before it ended. */
  function sums(values) {
    let [sum, low, high] = [0, 0, 0];
    const spans = Array.from(values, (value) => {
      const from = sum;
      sum += value;
      [low, high] = [Math.min(low, sum), Math.max(high, sum)];
      return [Math.min(from, sum), Math.max(from, sum)];
    });
    const unit = 100 / (high - low || 1);
    const y = (value) => ((high - value) * unit).toFixed(2);
    const bars = spans.map(([from, to], i) =>
      svg("rect", {
        class: values[i] < 0 ? "is-minus" : null,
        "data-column": i,
        x: i + 0.06,
        width: 0.88,
        y: y(to),
        height: Math.max(1.5, (to - from) * unit).toFixed(2),
      }),
    );
    const zero = svg("line", { x1: 0, x2: values.length, y1: y(0), y2: y(0) });
    const viewBox = `0 -3 ${values.length} 106`;
    return svg("svg", { class: "sums", viewBox, preserveAspectRatio: "none", "aria-hidden": "true" }, zero, bars);
  }

  GPT.parts.strips = strips;
})();
