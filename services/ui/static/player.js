// <live-picture>: a picture whose next one is loaded before it is shown.
// <video-pair>: two videos that play together. <growing-video>: plays an HLS playlist that is still growing.

const POLL_MS = 2000;

class LivePicture extends HTMLElement {
	static observedAttributes = ["src", "ready"];

	attributeChangedCallback(name, old, value) {
		if (name === "src") this.load(value);
		// The page brings attributes in line with its markup, which doesn't know this one; the last picture stays meanwhile.
		else if (value === null && this.shadowRoot) this.setAttribute("ready", "");
	}

	load(src) {
		const next = new Image();
		next.onload = () => {
			if (this.getAttribute("src") !== src) return;
			next.alt = this.getAttribute("alt") || "";
			next.style.cssText = "display:block;width:100%;height:auto;border-radius:10px";
			(this.shadowRoot || this.attachShadow({ mode: "open" })).replaceChildren(next);
			this.setAttribute("ready", "");
		};
		next.src = src;
	}
}

class VideoPair extends HTMLElement {
	connectedCallback() {
		for (const name of ["play", "pause", "seeked", "ratechange"]) {
			// These events don't bubble, so they are caught on the way down.
			this.addEventListener(name, (event) => this.follow(event.target, name), true);
		}
	}

	follow(leader, name) {
		const follower = [...this.querySelectorAll("video")].find((video) => video !== leader);
		if (!follower || follower.readyState < 1) return;
		const start = (video) => Number(video.dataset.start || 0);
		const time = leader.currentTime - start(leader) + start(follower);
		// A tolerance keeps the two from answering each other for ever.
		if (Math.abs(follower.currentTime - time) > 0.15) follower.currentTime = Math.max(0, time);
		if (name === "ratechange" && follower.playbackRate !== leader.playbackRate) follower.playbackRate = leader.playbackRate;
		if (name === "play" && follower.paused) follower.play().catch(() => {});
		if (name === "pause" && !follower.paused && !leader.ended) follower.pause();
	}
}

// "avc1.PPCCLL" from the avcC box of an MP4; null where there is none.
function codecOf(bytes) {
	for (let i = 0; i + 8 < bytes.length; i++) {
		if (bytes[i] === 0x61 && bytes[i + 1] === 0x76 && bytes[i + 2] === 0x63 && bytes[i + 3] === 0x43) {
			return "avc1." + [5, 6, 7].map((j) => bytes[i + j].toString(16).padStart(2, "0")).join("");
		}
	}
	return null;
}

function segmentsOf(playlist) {
	return playlist.split("\n").map((line) => line.trim()).filter((line) => line && !line.startsWith("#"));
}

class GrowingVideo extends HTMLElement {
	connectedCallback() {
		if (this.video) return;
		this.video = document.createElement("video");
		Object.assign(this.video, { controls: true, muted: true, playsInline: true });
		this.video.setAttribute("aria-label", this.getAttribute("label") || "");
		this.video.style.cssText = "display:block;width:100%;border-radius:10px;background:#000";
		this.attachShadow({ mode: "open" }).append(this.video);
		this.taken = 0;
		this.video.addEventListener("loadeddata", () => this.setAttribute("ready", ""));
		if (window.MediaSource) this.feed();
		else this.video.src = this.getAttribute("src");
	}

	disconnectedCallback() {
		this.ended = true;
	}

	async feed() {
		const source = new MediaSource();
		this.video.src = URL.createObjectURL(source);
		await new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
		while (!this.ended && source.readyState === "open") {
			if (await this.takeNew(source)) {
				if (source.readyState === "open") source.endOfStream();
				return;
			}
			await new Promise((resolve) => setTimeout(resolve, POLL_MS));
		}
	}

	// Appends what is new; true when nothing more will come.
	async takeNew(source) {
		try {
			const address = new URL(this.getAttribute("src"), window.location.href);
			const playlist = await (await fetch(address)).text();
			const names = segmentsOf(playlist);
			for (; this.taken < names.length && !this.ended; this.taken++) {
				const answer = await fetch(new URL(names[this.taken], address));
				if (!answer.ok) return false;
				await this.append(source, new Uint8Array(await answer.arrayBuffer()));
			}
			return playlist.includes("#EXT-X-ENDLIST");
		} catch (error) {
			// The page itself says when the service can't be reached; the next poll tries again.
			console.debug("the restored part can't be read now", error);
			return false;
		}
	}

	append(source, bytes) {
		if (!this.buffer) {
			this.buffer = source.addSourceBuffer(`video/mp4; codecs="${codecOf(bytes) || "avc1.640028"}"`);
		}
		return new Promise((resolve, reject) => {
			this.buffer.addEventListener("updateend", resolve, { once: true });
			this.buffer.addEventListener("error", () => reject(new Error("a segment can't be played")), { once: true });
			this.buffer.appendBuffer(bytes);
		});
	}
}

customElements.define("live-picture", LivePicture);
customElements.define("video-pair", VideoPair);
customElements.define("growing-video", GrowingVideo);
