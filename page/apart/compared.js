// Bars of several runs beside each other, on one scale: probabilities of tokens, and losses along the text. The elements
// stay the same from one run to the next, so that the bars move.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, percent, number, visible, spoken, best } = GPT.draw;
  const MOST = 8; // likeliest tokens of the first run
  const MORE = 3; // likeliest tokens of the others that are not among them

  /** Resizes a list of elements: adds with make(), or removes at the end. */
  function resize(parent, length, make) {
    while (parent.children.length > length) parent.lastChild.remove();
    while (parent.children.length < length) parent.append(make());
    return Array.from(parent.children);
  }

  /** The ids to show: the likeliest of the first run, then the likeliest others, and `always`. */
  function chosen(runs, always) {
    const ids = best(runs[0], MOST);
    for (const run of runs.slice(1)) {
      for (const id of best(run, MORE)) if (!ids.includes(id)) ids.push(id);
    }
    for (const id of always) if (!ids.includes(id)) ids.push(id);
    return ids;
  }

  /** The next token's probabilities in several runs: show(runs, always), runs of log-probabilities (V), in the order of
   *  `names`, or null where there is none; the ids in `always` are shown and marked. */
  function answers(name, names) {
    const list = html("ol", { class: "compared-rows", "aria-label": name });
    const legend = html("p", { class: "compared-legend", "aria-hidden": "true" },
      names.map((each, run) => html("span", {}, html("i", { class: `compared-bar is-${run}` }), each)));

    function line() {
      const tracks = names.map((_, run) => html("i", { class: `compared-bar is-${run}` }));
      return html("li", {}, html("span", { class: "compared-label" }), html("span", { class: "compared-tracks", "aria-hidden": "true" }, tracks), html("span", { class: "compared-value" }));
    }

    function show(given, always = []) {
      const runs = given.filter(Boolean);
      const ids = chosen(runs, always);
      const most = Math.max(...ids.flatMap((id) => runs.map((run) => run[id])));
      resize(list, ids.length, line).forEach((item, index) => {
        const id = ids[index];
        const piece = GPT.app.piece(id);
        item.classList.toggle("is-marked", always.includes(id));
        const [label, tracks, value] = item.children;
        label.replaceChildren(html("span", { class: "token" }, visible(piece, 14)));
        names.forEach((_, at) => {
          tracks.children[at].style.width = given[at] ? `${100 * Math.exp(given[at][id] - most)}%` : "0";
          tracks.children[at].hidden = !given[at];
        });
        value.textContent = runs.map((run) => percent(Math.exp(run[id]))).join(" → ");
      });
    }
    return { element: html("div", { class: "compared" }, legend, list), show };
  }

  /** The loss of each token in two runs, as columns of bars above the tokens: show(pieces, runs, chosen), with runs of T - 1
   *  losses: the first token has none. onchoose(t): the reader presses the column of token t + 1. */
  function losses(name, onchoose) {
    const list = html("div", { class: "losses", role: "group", "aria-label": name });
    const column = () =>
      html("button", { type: "button", class: "losses-column" },
        html("span", { class: "losses-bars" }, html("i", { class: "is-0" }), html("i", { class: "is-1" })),
        html("span", { class: "token" }));
    GPT.parts.roving(list, () => Array.from(list.children), () => {});
    list.addEventListener("click", ({ target }) => {
      const pressed = target.closest("button");
      if (pressed) onchoose(Array.from(list.children).indexOf(pressed));
    });

    function show(pieces, runs, chosen) {
      const most = Math.max(1, ...runs.map((run) => GPT.draw.largest(run)));
      resize(list, Math.max(0, pieces.length - 1), column).forEach((button, t) => {
        const [before, after] = runs.map((run) => run[t]);
        [before, after].forEach((loss, at) => {
          button.firstChild.children[at].style.height = `${(100 * loss) / most}%`;
        });
        button.lastChild.textContent = visible(pieces[t + 1], 12);
        button.classList.toggle("is-chosen", t === chosen);
        button.setAttribute("tabindex", t === Math.min(chosen, pieces.length - 2) ? 0 : -1);
        const words = `${spoken(pieces[t + 1])}: loss ${number(before)}, then ${number(after)} nats`;
        button.setAttribute("aria-label", words);
        button.title = words;
      });
    }
    return { element: html("div", { class: "scroll" }, list), show };
  }

  GPT.compared = { answers, losses };
})();
