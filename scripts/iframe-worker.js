// A browser gives no worker to a page that is opened from disk: there, the search works in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => this.tell(this, data);
      const script = inside.document.createElement("script");
      script.src = url;
      this.loaded = new Promise((done) => (script.onload = done));
      inside.document.head.append(script);
    }
    postMessage(data) {
      this.loaded.then(() => this.tell(this.frame.contentWindow, data));
    }
    // As between threads: later, and a copy.
    tell(whom, data) {
      const copy = structuredClone(data);
      setTimeout(() => whom?.onmessage?.({ data: copy }));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
