// Workers: the engine in a second thread, so that a long computation does not stop the page.
//
//   GPT.engine("maths", (GPT) => { GPT.maths = { ... }; });     an engine file is one function; it adds to the given GPT
//
//   const worker = GPT.worker(["maths", "forward"], (GPT, answer) => {      the handler begins in the worker
//     return (message) => answer({ ... }, [array.buffer]);                  and is called with each message
//   });
//   worker.onanswer = (found) => { ... };
//   worker.post(message);                                                   worker.stop() ends it
//
// A page that was opened from a file may not read its own scripts, so a worker cannot load them by address. But a
// function knows its source text. The worker's script is made from the texts of the engine files and of the handler, which
// sees its two parameters and nothing else of the page. Messages and answers are copied, except the buffers in answer's
// list, which move to the page.
//
// If the browser refuses workers, the handler runs in the page, with the page's own GPT: the same answers, later, and
// without copies. A handler that computes for long returns to the page now and then, with setTimeout.

var GPT = GPT || {};
(() => {
  "use strict";
  const sources = new Map(); // name of an engine file -> its function

  /** Runs an engine file's function, and keeps it for workers. */
  GPT.engine = (name, define) => {
    sources.set(name, define);
    define(GPT);
  };

  /** Starts `handler` in a worker that has these engine files, in this order. */
  GPT.worker = (files, handler) => {
    const worker = { onanswer: () => {}, post: null, stop: null, isApart: true };
    const receive = (found) => worker.onanswer(found);
    const waiting = []; // messages that the worker has not received, if it is refused
    let thread = null;

    function inPage() {
      let isStopped = false;
      const answer = (found) => setTimeout(() => isStopped || receive(found));
      const handle = handler(GPT, answer);
      worker.isApart = false;
      worker.post = (message) => setTimeout(() => isStopped || handle(message));
      worker.stop = () => { isStopped = true; };
      waiting.forEach(worker.post);
    }

    try {
      thread = start(files.map((name) => sources.get(name)), handler);
    } catch {
      inPage(); // refused at once
      return worker;
    }
    let hasBegun = false;
    worker.post = (message) => {
      if (!hasBegun) waiting.push(message);
      thread.postMessage(message);
    };
    worker.stop = () => thread.terminate();
    thread.onmessage = () => {
      hasBegun = true;
      waiting.length = 0;
      thread.onmessage = ({ data }) => receive(data);
    };
    thread.onerror = (event) => {
      if (hasBegun) return; // an error of the handler: the browser reports it
      event.preventDefault();
      inPage(); // refused later
    };
    return worker;
  };

  /** A worker whose first message says that it has begun; the others are the handler's answers. */
  function start(engine, handler) {
    const script = `"use strict";
      const GPT = {};
      ${engine.map((define) => `(${define})(GPT);`).join("\n")}
      const handle = (${handler})(GPT, (found, moved = []) => postMessage(found, moved));
      onmessage = ({ data }) => handle(data);
      postMessage("ready");`;
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    return new Worker(address);
  }
})();
