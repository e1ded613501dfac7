"use strict";
// What plays, and the controls and keys for it.

const FADE = 0.005; // seconds, of switching and at the ends of what is played
const SHORTEST_LOOP = 0.2; // seconds

// Something that plays from a position on, and may loop a part of itself. What it plays is up to who extends it:
// `prepare()` promises that it can start, `start(at)` and `stop()` do that, `sounding` is whether it did, and `heard`
// is the position then. Events: "change" when anything but the position changed.
class Timeline extends EventTarget {
  from = 0; // seconds, while it does not sound
  #turn = 0; // changes when what was asked for is no longer wanted

  constructor(duration) {
    super();
    this.duration = duration;
    this.playing = false; // asked to play; `sounding` once it is decoded
    this.loop = true;
    this.region = null; // [start, end] in seconds
    this.error = "";
  }

  get span() {
    return this.region ?? [0, this.duration];
  }

  get position() {
    return this.sounding ? this.heard : this.from;
  }

  async play() {
    const turn = ++this.#turn;
    this.playing = true;
    this.error = "";
    this.changed();
    try {
      await this.prepare();
    } catch (error) {
      return this.fail(error);
    }
    if (turn === this.#turn && this.playing) this.start(this.from);
    this.changed();
  }

  pause() {
    this.#turn++;
    this.from = this.position;
    this.end();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  // Playing is over; the position stays as it is.
  end() {
    this.playing = false;
    this.stop();
    this.changed();
  }

  fail(error) {
    this.error = error.told ? error.message : "This browser cannot decode the sounds of this page.";
    this.end();
  }

  seek(seconds) {
    const [start, end] = this.span;
    const at = Math.min(Math.max(seconds, 0), this.duration);
    if (at < start || at > end) this.region = null;
    this.#restart(at);
  }

  setLoop(loop) {
    const at = this.position;
    this.loop = loop;
    this.#restart(at);
  }

  setRegion(region) {
    const at = this.position;
    if (region) {
      const start = Math.min(Math.max(Math.min(...region), 0), this.duration - SHORTEST_LOOP);
      region = [Math.max(start, 0), Math.min(Math.max(...region, start + SHORTEST_LOOP), this.duration)];
    }
    this.region = region;
    this.#restart(region && (at < region[0] || at >= region[1]) ? region[0] : at);
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  #restart(at) {
    const sounding = this.sounding;
    this.from = at;
    if (sounding) this.start(at);
    this.changed();
  }
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

// Binds the controls of a transport (see page.py) inside of `root` to a player.
function bindTransport(root, player) {
  const play = root.querySelector("[data-do=play]");
  const loop = root.querySelector("[data-do=loop]");
  const seek = root.querySelector("[data-do=seek]");
  const now = root.querySelector("[data-show=position]");
  const status = root.querySelector("[data-show=status]");
  play.addEventListener("click", () => player.toggle());
  loop.addEventListener("click", () => player.setLoop(!player.loop));
  seek.addEventListener("input", () => player.seek(Number(seek.value)));

  const draw = () => {
    const at = player.position;
    seek.value = at;
    seek.setAttribute("aria-valuetext", `${at.toFixed(1)} seconds`);
    now.textContent = clock(at);
    root.style.setProperty("--at", at / player.duration);
  };
  let drawing = false;
  const frame = () => {
    draw();
    drawing = player.playing;
    if (drawing) requestAnimationFrame(frame);
  };
  player.addEventListener("change", () => {
    root.classList.toggle("playing", player.playing);
    root.classList.toggle("looped", Boolean(player.region));
    play.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    loop.setAttribute("aria-pressed", player.loop);
    const [start, end] = player.span;
    root.style.setProperty("--from", start / player.duration);
    root.style.setProperty("--to", end / player.duration);
    status.textContent = player.error || (player.playing && !player.sounding ? "Decoding …" : "");
    draw();
    if (player.playing && !drawing) requestAnimationFrame(frame);
  });
}

// A click on a picture of the sound goes there, dragging over it marks what is looped.
function bindTimeline(element, player) {
  const at = (event) => {
    const box = element.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * player.duration;
  };
  let pressed = null;
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pressed = { x: event.clientX, at: at(event), dragged: false };
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    if (!pressed) return;
    pressed.dragged ||= Math.abs(event.clientX - pressed.x) > 6;
    if (pressed.dragged) {
      const ends = [pressed.at, at(event)];
      element.parentElement.style.setProperty("--mark-from", Math.min(...ends) / player.duration);
      element.parentElement.style.setProperty("--mark-to", Math.max(...ends) / player.duration);
      element.classList.add("marking");
    }
  });
  const done = (event) => {
    element.classList.remove("marking");
    if (pressed && event.type === "pointerup") {
      if (pressed.dragged) player.setRegion([pressed.at, at(event)]);
      else player.seek(pressed.at);
    }
    pressed = null;
  };
  element.addEventListener("pointerup", done);
  element.addEventListener("pointercancel", done);
}

// Keys of whatever `current()` plays. Sliders that are no part of a transport keep their arrow keys, and the buttons
// that are none keep the space bar.
function bindKeys(current, more) {
  const keys = {
    " ": (player) => player.toggle(),
    ArrowLeft: (player, event) => player.seek(player.position - (event.shiftKey ? 0.1 : 1)),
    ArrowRight: (player, event) => player.seek(player.position + (event.shiftKey ? 0.1 : 1)),
    l: (player) => player.setLoop(!player.loop),
    "[": (player) => player.setRegion([player.position, Math.max(player.span[1], player.position)]),
    "]": (player) => player.setRegion([Math.min(player.span[0], player.position), player.position]),
    Escape: (player) => player.setRegion(null),
    ...more,
  };
  const mine = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return null;
    const { target, key } = event;
    if (target.closest("input:not([type=range]), textarea, select")) return null;
    const transport = target.closest("[data-player]");
    if (key === " " && !transport && target.closest("a, button, summary")) return null;
    if (/^Arrow/.test(key) && !transport && target.closest("input")) return null;
    return keys[/^[A-Z]$/.test(key) ? key.toLowerCase() : key] ?? (/^[0-9]$/.test(key) ? keys.digit : null);
  };
  document.addEventListener("keydown", (event) => {
    const action = mine(event);
    const player = action && current();
    if (!player) return;
    event.preventDefault();
    if (!event.repeat || /^Arrow/.test(event.key)) action(player, event);
  });
  // Some browsers press a focused button when the space bar comes up again.
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && mine(event)) event.preventDefault();
  });
}
