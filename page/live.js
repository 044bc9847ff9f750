// The trace of the reader's text, computed in a worker, so that the page answers while a long text is read.
//
//   const live = GPT.live(model, (trace) => { ... });      called with the trace of the tokens that were wanted last
//   live.read(tokens);

var GPT = GPT || {};
(() => {
  "use strict";
  const ENGINE = ["maths", "tokenizer", "forward", "reading"];

  GPT.live = (model, onread) => {
    const worker = GPT.worker(ENGINE, readInParts);
    let [trace, wanted] = [null, []];

    // The page repeats what the worker does with its cache: each part replaces what follows its unchanged beginning.
    worker.onanswer = (part) => {
      trace = GPT.reading.joined(model, trace, GPT.reading.unpacked(part));
      if (String(trace.tokens) === String(wanted)) onread(trace);
    };
    worker.post({ exported: GPT.exported });

    function read(tokens) {
      wanted = tokens;
      worker.post({ tokens });
    }
    return { read };
  };

  /** The handler in the worker. It reads a long text in parts, so that a newer text can take its place in between. */
  function readInParts(GPT, answer) {
    const MOST = 32; // tokens in one part
    let [reader, wanted, isReading] = [null, [], false];

    function next() {
      const { message, buffers } = GPT.reading.packed(reader.read(wanted, MOST));
      answer(message, buffers);
      isReading = reader.tokens.length < wanted.length;
      if (isReading) setTimeout(next); // messages that have arrived come first
    }

    return ({ exported, tokens }) => {
      if (exported) reader = GPT.reading.reader(GPT.model || GPT.load(exported)); // the page has a model, a worker has none
      else {
        wanted = tokens;
        if (!isReading) next();
      }
    };
  }
})();
