// Sounds that play at one position, of which exactly one is heard: switching changes gains and nothing else; needs
// controls.js.

const audioContext = (() => {
  let context;
  // Browsers want a gesture first, so this is not made before something is to be played.
  return () => (context ??= new (window.AudioContext || window.webkitAudioContext)());
})();

function bytesOf(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes.buffer;
}

class Player extends Timeline {
  #buffers = null; // [AudioBuffer], once they are decoded
  #loading = null;
  #voices = []; // [{source, gain}] while playing
  #output = null;
  #begun = 0; // time of the context at which `from` was played

  constructor(ids, duration) {
    super(duration);
    this.ids = ids;
    this.selected = 0;
    this.levels = ids.map(() => 1);
  }

  get sounding() {
    return this.#voices.length > 0;
  }

  get heard() {
    const context = audioContext();
    const gone = context.currentTime - (context.outputLatency || 0) - this.#begun;
    const at = this.from + Math.max(0, gone);
    const [start, end] = this.span;
    if (at < end) return at;
    return this.loop ? start + ((at - end) % (end - start)) : end;
  }

  prepare() {
    return Promise.all([audioContext().resume(), this.#load()]);
  }

  select(index) {
    if (index < 0 || index >= this.ids.length) return;
    this.selected = index;
    this.#mix();
    this.changed();
  }

  setLevels(levels) {
    this.levels = levels;
    this.#mix();
    this.changed();
  }

  // The samples of one sound, for drawing.
  async samples(index) {
    await this.#load();
    return this.#buffers[index].getChannelData(0);
  }

  // Forget the decoded sounds, which take much memory.
  release() {
    if (this.playing) this.pause();
    this.#buffers = this.#loading = null;
  }

  #load() {
    this.#loading ??= (async () => {
      const distinct = [...new Set(this.ids)];
      const decoded = await Promise.all(distinct.map((id) => audioContext().decodeAudioData(bytesOf(id))));
      this.#buffers = this.ids.map((id) => decoded[distinct.indexOf(id)]);
    })();
    return this.#loading;
  }

  start(at) {
    this.stop();
    const context = audioContext();
    const [start, end] = this.span;
    const from = at < start || at >= end - 0.01 ? start : at;
    const when = context.currentTime + 0.02;
    this.#output = context.createGain();
    this.#output.connect(context.destination);
    this.#shape(this.#output.gain, when, end - from, end - start);
    this.#voices = this.#buffers.map((buffer, index) => {
      const source = context.createBufferSource();
      const gain = context.createGain();
      source.buffer = buffer;
      source.loop = this.loop;
      source.loopStart = start;
      source.loopEnd = end;
      gain.gain.value = index === this.selected ? this.levels[index] : 0;
      source.connect(gain).connect(this.#output);
      if (this.loop) source.start(when, from);
      else source.start(when, from, end - from);
      return { source, gain };
    });
    this.#voices[0].source.onended = () => {
      this.from = start;
      this.end();
    };
    this.#begun = when;
    this.from = from;
  }

  // Fades at the ends and where a loop joins, which would click.
  #shape(gain, when, first, length) {
    gain.setValueAtTime(0, when);
    gain.linearRampToValueAtTime(1, when + FADE);
    const joins = this.loop ? Math.ceil(3600 / length) : 1;
    for (let join = 0; join < Math.min(joins, 1000); join++) {
      const at = when + first + join * length;
      gain.setValueAtTime(1, Math.max(at - FADE, when + FADE));
      gain.linearRampToValueAtTime(0, Math.max(at, when + FADE));
      if (this.loop) gain.linearRampToValueAtTime(1, at + FADE);
    }
  }

  stop() {
    if (!this.sounding) return;
    const now = audioContext().currentTime;
    this.#output.gain.cancelScheduledValues(now);
    this.#output.gain.setTargetAtTime(0, now, FADE / 3);
    for (const { source } of this.#voices) {
      source.onended = null;
      source.stop(now + 2 * FADE);
    }
    this.#voices = [];
  }

  #mix() {
    this.#voices.forEach(({ gain }, index) => {
      // The gains of what goes and what comes always add up to one.
      gain.gain.setTargetAtTime(index === this.selected ? this.levels[index] : 0, audioContext().currentTime, FADE / 3);
    });
  }
}
