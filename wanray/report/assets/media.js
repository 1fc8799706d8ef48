// Plays a clip, whatever it is: a movie, an animated image, a still, a folder of frames.
const addressOf = (path) => data.base + path.split("/").map(encodeURIComponent).join("/");
const posterOf = (clip) => clip.poster_url || addressOf(`${clip.video.slice(0, clip.video.lastIndexOf("/"))}/poster.jpg`);
const videoOf = (clip) => clip.video_url || addressOf(clip.video);

const kindOf = (clip) => {
  const name = clip.video.slice(clip.video.lastIndexOf("/") + 1);
  if (!name.includes(".")) return "frames";
  return /\.(mp4|webm)$/.test(name) ? "movie" : "image";
};

const fileLink = (clip) => el("a", { href: videoOf(clip), target: "_blank", rel: "noopener" }, "Open the file.");

const durationOf = (clip) => clip.num_frames / clip.fps;

// Each medium has: node, play(), pause(), seek(seconds), time(), isPlaying(), and canSeek.
const makeMedium = (clip) => ({ movie: makeMovie, image: makeImage, frames: makeFrames })[kindOf(clip)](clip);

const pictureOf = (clip, address) => el("img", { src: address, alt: clip.prompt, width: settingsOf(clip).width, height: settingsOf(clip).height });

const makeMovie = (clip) => {
  const video = el("video", { src: videoOf(clip), poster: posterOf(clip), controls: true, loop: true, playsinline: true, preload: "metadata", "aria-label": clip.prompt });
  video.muted = true;
  const node = el("div", { class: "medium" }, video);
  video.addEventListener("error", () => {
    node.replaceChildren(pictureOf(clip, posterOf(clip)),
      el("p", { class: "note" }, `This browser cannot play it here (${clip.codec}). `, fileLink(clip)));
  });
  return {
    node, canSeek: true,
    play: () => video.play().catch(() => {}), pause: () => video.pause(), isPlaying: () => !video.paused,
    seek: (at_s) => { video.currentTime = at_s; }, time: () => video.currentTime,
  };
};

const makeImage = (clip) => unmoved(el("div", { class: "medium" }, pictureOf(clip, videoOf(clip))));

// What moves by itself or not at all.
const unmoved = (node) => ({
  node, canSeek: false, play: () => {}, pause: () => {}, seek: () => {}, time: () => 0, isPlaying: () => false,
});

const makeFrames = (clip) => {
  if (clip.poster_url) {
    return unmoved(el("div", { class: "medium" }, pictureOf(clip, posterOf(clip)), words(`${clip.num_frames} frames: ${clip.video}/`, { class: "note" }, "p")));
  }
  const addresses = Array.from({ length: clip.num_frames }, (_, index) => addressOf(`${clip.video}/${String(index).padStart(6, "0")}.png`));
  const pictures = addresses.map(() => null);
  const image = pictureOf(clip, addresses[0]);
  const slider = el("input", { type: "range", min: 0, max: clip.num_frames - 1, value: 0, "aria-label": "Frame" });
  const button = el("button", { type: "button", class: "small" }, "Play");
  let at_s = 0, since = null;
  const show = () => {
    const index = Math.min(clip.num_frames - 1, Math.floor(at_s * clip.fps + 1e-6));
    image.src = addresses[index];
    slider.value = index;
  };
  const step = (now) => {
    if (since === null || !image.isConnected) return;
    at_s = (at_s + (now - since) / 1000) % durationOf(clip);
    since = now;
    show();
    requestAnimationFrame(step);
  };
  const pause = () => { since = null; button.textContent = "Play"; };
  const play = () => {
    if (since !== null) return;
    addresses.forEach((address, index) => { if (!pictures[index]) (pictures[index] = new Image()).src = address; });
    since = performance.now();
    button.textContent = "Pause";
    requestAnimationFrame(step);
  };
  button.addEventListener("click", () => (since === null ? play() : pause()));
  slider.addEventListener("input", () => { pause(); at_s = slider.value / clip.fps; show(); });
  return {
    node: el("div", { class: "medium" }, image, el("div", { class: "player" }, button, slider)),
    canSeek: true, play, pause, isPlaying: () => since !== null, time: () => at_s,
    seek: (to_s) => { at_s = Math.min(to_s, durationOf(clip) - 1e-3); show(); },
  };
};
