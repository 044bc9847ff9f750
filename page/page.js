// The page itself: shows the tokens of what is typed, and what the model expects next.

var GPT = GPT || {};
(() => {
  "use strict";
  const element = (id) => document.getElementById(id);
  const model = GPT.load(GPT.exported);
  GPT.model = model;

  function show() {
    const pieces = model.tokenizer.pieces(element("prompt").value).slice(-model.config.max_seq_len);
    element("tokens").replaceChildren(...pieces.map(({ id, text }) => {
      const span = document.createElement("span");
      span.textContent = text;
      span.title = `token ${id}`;
      return span;
    }));
    const tokens = pieces.length ? pieces.map(({ id }) => id) : [model.tokenizer.eot_id];
    const probs = GPT.sampling.softmax(model.run(tokens).logits(tokens.length - 1));
    const best = Array.from(probs.keys()).sort((a, b) => probs[b] - probs[a]).slice(0, 10);
    element("next").replaceChildren(...best.map((id) => {
      const row = document.createElement("tr");
      for (const text of [JSON.stringify(model.tokenizer.decode([id])), (100 * probs[id]).toFixed(1) + " %"]) {
        row.appendChild(document.createElement("td")).textContent = text;
      }
      return row;
    }));
  }

  element("about").textContent = JSON.stringify(model.about);
  element("prompt").addEventListener("input", show);
  show();
})();
