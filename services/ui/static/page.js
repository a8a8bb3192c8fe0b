// Address bar and light/dark. The rest of the page is Gradio's.

function setAddress(change, replace) {
	const address = new URL(window.location.href);
	change(address.searchParams);
	if (address.href !== window.location.href) {
		history[replace ? "replaceState" : "pushState"]({}, "", address);
	}
}

window.seedvr2 = {
	showJob(id) {
		if (!id) return;
		setAddress((query) => {
			query.delete("upload");
			query.set("job", id);
		});
		window.dispatchEvent(new Event("seedvr2-job"));
		window.scrollTo({ top: 0 });
	},
	showHome() {
		setAddress((query) => {
			query.delete("job");
			query.delete("upload");
		});
	},
	keepUpload(id) {
		setAddress((query) => (id ? query.set("upload", id) : query.delete("upload")), true);
	},
};

// Back and forward: the page for that address is built anew.
window.addEventListener("popstate", () => window.location.reload());

const THEME_KEY = "seedvr2-theme";

function applyTheme(dark) {
	document.body.classList.toggle("dark", dark);
	document.documentElement.style.colorScheme = dark ? "dark" : "light";
}

const chosen = localStorage.getItem(THEME_KEY);
const system = window.matchMedia("(prefers-color-scheme: dark)");
applyTheme(chosen ? chosen === "dark" : system.matches);
system.addEventListener("change", (event) => {
	if (!localStorage.getItem(THEME_KEY)) applyTheme(event.matches);
});

document.addEventListener("click", (event) => {
	if (!event.target.closest("[data-theme-switch]")) return;
	const dark = !document.body.classList.contains("dark");
	localStorage.setItem(THEME_KEY, dark ? "dark" : "light");
	applyTheme(dark);
});
