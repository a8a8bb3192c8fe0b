// <video-upload>: sends a file in pieces, goes on after a broken connection or a reload, shows progress, can be cancelled.
// It says "upload-done" (detail: the upload's id) and "upload-removed".

const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 8000;

class Stopped extends Error {}

class Refused extends Error {
	constructor(message, status) {
		super(message);
		this.status = status;
	}
}

function newId() {
	const bytes = crypto.getRandomValues(new Uint8Array(12));
	return "u" + Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

function sizeWords(bytes) {
	const units = ["bytes", "kB", "MB", "GB", "TB"];
	let unit = 0;
	while (bytes >= 999.5 && unit < units.length - 1) {
		bytes /= 1000;
		unit += 1;
	}
	return `${unit && bytes < 9.95 ? bytes.toFixed(1) : bytes.toFixed(0)} ${units[unit]}`;
}

function timeWords(seconds) {
	if (seconds < 1) return "a moment";
	return seconds < 90 ? `about ${Math.round(seconds)} s` : `about ${Math.round(seconds / 60)} min`;
}

function element(name, attributes = {}, ...children) {
	const made = document.createElement(name);
	for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
	made.append(...children);
	return made;
}

// A file that was begun before is found again by what the browser tells of it.
function memoryKey(file) {
	return `seedvr2-upload:${file.name}:${file.size}:${file.lastModified}`;
}

class VideoUpload extends HTMLElement {
	connectedCallback() {
		if (this.built) return;
		this.built = true;
		this.build();
		const known = new URL(window.location.href).searchParams.get("upload");
		if (known) this.takeUp(known);
		window.addEventListener("seedvr2-job", () => this.run && this.forget());
	}

	build() {
		this.input = element("input", { type: "file", accept: "video/*,image/*,.mkv,.mts,.m2ts,.ts,.avi,.mxf,.y4m,.tif,.tiff,.zip", id: "video-file" });
		const words = element("span", { class: "sv-drop-words" }, element("b", {}, "Choose a video or picture"), " or drop it here, or a zip of numbered pictures");
		const limit = element(
			"span", { class: "sv-muted" }, `MP4, MOV, MKV, WebM and others, at most ${this.getAttribute("limit-words")}`,
		);
		const icon = element("span", { class: "sv-drop-icon", "aria-hidden": "true" });
		this.drop = element("label", { class: "sv-drop", for: "video-file" }, this.input, icon, words, limit);
		this.status = element("div", { class: "sv-upload", hidden: "" });
		this.message = element("div", { class: "sv-notice", role: "alert", hidden: "" });
		this.replaceChildren(this.drop, this.status, this.message);
		this.input.addEventListener("change", () => this.input.files[0] && this.start(this.input.files[0]));
		for (const name of ["dragover", "dragleave", "drop"]) {
			this.drop.addEventListener(name, (event) => {
				event.preventDefault();
				this.drop.classList.toggle("sv-over", name === "dragover");
				if (name === "drop" && event.dataTransfer.files[0]) this.start(event.dataTransfer.files[0]);
			});
		}
	}

	async start(file) {
		this.stop();
		const run = (this.run = { file, stopped: false, began: performance.now(), first: 0 });
		this.show("drop", false);
		try {
			if (!file.size) throw new Refused("This file is empty; choose another.");
			if (file.size > Number(this.getAttribute("limit"))) {
				throw new Refused(`This file has ${sizeWords(file.size)}; at most ${this.getAttribute("limit-words")} are taken here.`);
			}
			this.showProgress(run, 0);
			run.id = localStorage.getItem(memoryKey(file)) || newId();
			await this.send(run);
			localStorage.removeItem(memoryKey(file));
			this.showDone(file.name, file.size, file);
			this.finish(run.id);
		} catch (error) {
			if (error instanceof Stopped) return;
			localStorage.removeItem(memoryKey(file));
			this.reset();
			this.fail(error.message);
		}
	}

	// Pieces one after the other; each failure that can pass is waited out, then the server tells from where to go on.
	async send(run) {
		let pause = RETRY_FIRST_MS;
		let offset = null;
		for (;;) {
			try {
				if (offset === null) {
					const begun = await this.begin(run);
					if (begun.complete) return;
					offset = run.first = begun.received_bytes;
					run.began = performance.now();
				}
				const sent = await this.sendPiece(run, offset);
				if (sent.complete) return;
				offset = sent.received_bytes;
				pause = RETRY_FIRST_MS;
			} catch (error) {
				const passing = !(error instanceof Refused) || error.status >= 500 || error.status === 409 || error.status === 429;
				if (error instanceof Stopped || !passing) throw error;
				offset = null;
				this.showWaiting(run);
				await this.wait(run, pause);
				pause = Math.min(2 * pause, RETRY_MAX_MS);
			}
		}
	}

	async begin(run) {
		const body = JSON.stringify({ filename: run.file.name, size_bytes: run.file.size });
		try {
			const begun = await this.request(run, "PUT", run.id, body, {});
			localStorage.setItem(memoryKey(run.file), run.id);
			return begun;
		} catch (error) {
			// The id was remembered for a file that is another one now.
			if (error.status === 409) run.id = newId();
			throw error;
		}
	}

	sendPiece(run, offset) {
		const end = Math.min(run.file.size, offset + Number(this.getAttribute("piece")));
		const headers = { "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" };
		if (end === run.file.size) headers["Upload-Complete"] = "?1";
		const onProgress = (event) => this.showProgress(run, offset + Math.min(event.loaded, end - offset));
		return this.request(run, "PATCH", run.id, run.file.slice(offset, end), headers, onProgress);
	}

	request(run, method, id, body, headers, onProgress) {
		return new Promise((resolve, reject) => {
			if (run.stopped) return reject(new Stopped());
			const request = (run.request = new XMLHttpRequest());
			request.open(method, this.getAttribute("base") + id);
			for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
			if (onProgress) request.upload.onprogress = onProgress;
			request.onload = () => {
				const answer = parsed(request.responseText);
				if (request.status < 300) return resolve(answer);
				reject(new Refused(answer.error || `The server answered ${request.status}.`, request.status));
			};
			request.onerror = () => reject(new Error("The connection broke."));
			request.onabort = () => reject(new Stopped());
			request.send(body);
		});
	}

	wait(run, milliseconds) {
		return new Promise((resolve, reject) => {
			run.wake = () => reject(new Stopped());
			setTimeout(() => (run.stopped ? reject(new Stopped()) : resolve()), milliseconds);
		});
	}

	async takeUp(id) {
		const answer = await fetch(this.getAttribute("base") + encodeURIComponent(id));
		if (!answer.ok) return window.seedvr2.keepUpload("");
		const upload = await answer.json();
		if (!upload.complete || this.run) return;
		this.run = { id, stopped: false };
		this.showDone(upload.filename, upload.size_bytes, null);
		this.finish(id);
	}

	finish(id) {
		window.seedvr2.keepUpload(id);
		this.dispatchEvent(new CustomEvent("upload-done", { detail: id, bubbles: true }));
	}

	stop() {
		const run = this.run;
		this.run = null;
		this.fail("");
		if (!run) return;
		run.stopped = true;
		run.request?.abort();
		run.wake?.();
	}

	remove() {
		const run = this.run;
		this.forget();
		// One that was taken up from the address may belong to a job, whose source it is.
		if (run?.id && run.file) fetch(this.getAttribute("base") + run.id, { method: "DELETE" });
		if (run?.file) localStorage.removeItem(memoryKey(run.file));
	}

	// Back to the beginning; what was uploaded stays with the service.
	forget() {
		this.stop();
		this.reset();
		this.dispatchEvent(new CustomEvent("upload-removed", { bubbles: true }));
	}

	reset() {
		window.seedvr2.keepUpload("");
		this.input.value = "";
		URL.revokeObjectURL(this.local);
		this.show("status", false);
		this.show("drop", true);
	}

	show(part, visible) {
		this[part].hidden = !visible;
	}

	fail(words) {
		this.message.textContent = words;
		this.show("message", Boolean(words));
	}

	showProgress(run, done) {
		if (run.stopped) return;
		const seconds = (performance.now() - run.began) / 1000;
		const speed = seconds > 0.5 ? (done - run.first) / seconds : 0;
		const words = [`${sizeWords(done)} of ${sizeWords(run.file.size)}`];
		if (speed > 0) words.push(`${sizeWords(speed)}/s`, `${timeWords((run.file.size - done) / speed)} left`);
		this.showStatus(run.file.name, words.join(", "), done / run.file.size, "Cancel upload");
	}

	showWaiting(run) {
		this.showStatus(run.file.name, "The connection is interrupted; going on as soon as it is back.", null, "Cancel upload");
	}

	showDone(name, size, file) {
		this.showStatus(name, `${sizeWords(size)}, uploaded`, 1, "Choose another");
		this.status.dataset.done = "";
		if (file) this.showLocally(file);
	}

	// The person sees what they chose at once, from their own disk.
	showLocally(file) {
		const seen = file.type.startsWith("image/")
			? element("img", { alt: "Chosen picture" })
			: element("video", { controls: "", muted: "", playsinline: "", preload: "metadata", "aria-label": "Chosen video" });
		this.local = seen.src = URL.createObjectURL(file);
		seen.addEventListener("error", () => seen.remove());
		this.status.append(seen);
	}

	showStatus(name, words, share, action) {
		this.show("drop", false);
		this.show("status", true);
		if (this.bar && this.status.contains(this.bar) && this.button.textContent === action) {
			this.words.textContent = words;
			if (share !== null) this.setShare(share);
			return;
		}
		delete this.status.dataset.done;
		this.words = element("span", { class: "sv-muted", "aria-live": "polite" }, words);
		this.bar = element(
			"div",
			{ class: "sv-bar", role: "progressbar", "aria-label": "Uploaded", "aria-valuemin": "0", "aria-valuemax": "100" },
			element("span"),
		);
		this.button = element("button", { type: "button", class: "sv-button" }, action);
		this.button.addEventListener("click", () => this.remove());
		const text = element("div", { class: "sv-upload-text" }, element("b", {}, name), this.words);
		this.status.replaceChildren(element("div", { class: "sv-upload-row" }, text, this.button), this.bar);
		this.setShare(share ?? 0);
	}

	setShare(share) {
		const value = Math.round(100 * share);
		this.bar.firstChild.style.width = `${value}%`;
		this.bar.setAttribute("aria-valuenow", value);
	}
}

function parsed(text) {
	try {
		return JSON.parse(text);
	} catch {
		return {};
	}
}

customElements.define("video-upload", VideoUpload);
