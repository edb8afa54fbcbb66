'use strict';
// The page asks for the API key, and shows the stream of /admin/state with it. Texts of the
// cluster, of templates and of applications are set as textContent only.
(() => {
  const element = (id) => document.getElementById(id);
  // Behind an ingress, the API can be below a path.
  const root = location.pathname.replace(/\/admin\/?$/, '');
  const silence = 30_000; // milliseconds: the service sends a comment each 10 s
  const stopsAtOnce = 4;
  let key = ''; // nowhere else, so that a reload forgets it
  let watching = new AbortController();
  let skew = 0; // the server's clock minus ours, in milliseconds
  const views = new Map(); // by the name of a template

  const say = (text) => { element('message').textContent = text; };
  const set = (node, text) => {
    if (node.textContent !== text) {
      node.textContent = text;
    }
  };
  const make = (name, className, text) => {
    const node = document.createElement(name);
    node.className = className || '';
    node.textContent = text || '';
    return node;
  };
  const count = (n, what) => `${n} ${what}${n === 1 ? '' : 's'}`;

  const ask = (path, options) => fetch(root + path, {
    cache: 'no-store', credentials: 'omit', redirect: 'error', ...options,
    headers: { Authorization: key, ...options.headers },
  });

  // problemOf returns what an answer says is wrong.
  const problemOf = async (answer) => {
    try {
      return (await answer.json()).error || `HTTP ${answer.status}`;
    } catch {
      return `HTTP ${answer.status}`;
    }
  };

  // read calls show for each state of a stream, and alive for whatever comes.
  const read = async (body, alive, show) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      alive();
      text += value;
      const blocks = text.split('\n\n');
      text = blocks.pop();
      const states = blocks.filter((block) => block.startsWith('event: state\ndata: '));
      if (states.length > 0) { // the last is all that matters
        show(JSON.parse(states.pop().slice('event: state\ndata: '.length)));
      }
    }
  };

  // watch shows the stream until the key is forgotten, and connects again when it ends.
  const watch = async (stop) => {
    for (let wait = 1000; !stop.signal.aborted; wait = Math.min(2 * wait, 15_000)) {
      const connection = new AbortController();
      const end = () => connection.abort();
      stop.signal.addEventListener('abort', end);
      let timer = setTimeout(end, silence);
      const alive = () => {
        clearTimeout(timer);
        timer = setTimeout(end, silence);
      };
      try {
        const answer = await ask('/admin/state', { headers: { Accept: 'text/event-stream' }, signal: connection.signal });
        if (answer.status === 403) {
          forget('The service does not accept this key.');
          return;
        }
        if (!answer.ok) {
          throw new Error(await problemOf(answer));
        }
        skew = (Date.parse(answer.headers.get('Date')) - Date.now()) || 0;
        await read(answer.body, alive, (state) => {
          if (!stop.signal.aborted) {
            wait = 1000;
            show(state);
          }
        });
      } catch {
        // The connection failed, or ended midway: what is said below.
      } finally {
        clearTimeout(timer);
        stop.signal.removeEventListener('abort', end);
      }
      if (!stop.signal.aborted) {
        setLive('The service does not answer. Trying again …');
        await new Promise((done) => setTimeout(done, wait));
      }
    }
  };

  const setLive = (text) => {
    element('live').hidden = false;
    set(element('live'), text);
  };

  const forget = (why) => {
    watching.abort();
    key = '';
    for (const view of views.values()) {
      view.section.remove();
    }
    views.clear();
    element('limits').replaceChildren();
    for (const id of ['state', 'live', 'forget']) {
      element(id).hidden = true;
    }
    element('confirm').close();
    element('login').hidden = false;
    element('key').focus();
    say(why);
  };

  const show = (state) => {
    element('login').hidden = true;
    for (const id of ['state', 'forget']) {
      element(id).hidden = false;
    }
    setLive('Live');
    const sum = (field) => state.templates.reduce((n, template) => n + template[field], 0);
    const starting = sum('pending') + sum('deploying');
    const all = starting + sum('deployed') + sum('failed');
    set(element('summary'), `${count(all, 'instance')}: ${sum('deployed')} deployed, ${starting} starting, ${sum('failed')} failed.` +
      (state['launches-paused'] ? ' Launches are paused (--pause-launches).' : ''));
    showLimits(state.limits);
    const names = new Set(state.templates.map((template) => template.name));
    for (const [name, view] of views) {
      if (!names.has(name)) {
        view.section.remove();
        views.delete(name);
      }
    }
    element('no-templates').hidden = names.size > 0;
    state.templates.forEach((template, i) => {
      if (!views.has(template.name)) {
        views.set(template.name, newView(template.name));
      }
      const view = views.get(template.name);
      place(element('templates'), view.section, i);
      showTemplate(view, template);
    });
  };

  // place makes a node the child with this index, and moves nothing that is right.
  const place = (parent, node, index) => {
    if (parent.children[index] !== node) {
      parent.insertBefore(node, parent.children[index] || null);
    }
  };

  const showLimits = (limits) => {
    element('no-limits').hidden = limits.length > 0;
    const list = element('limits');
    while (list.children.length > limits.length) {
      list.lastElementChild.remove();
    }
    limits.forEach((limit, i) => {
      let item = list.children[i];
      if (!item) {
        item = make('li');
        const meter = make('meter');
        [meter.high, meter.optimum] = [0.8, 0];
        item.append(make('span'), meter);
        list.append(item);
      }
      const [text, meter] = item.children;
      const none = limit.hard === '0'; // nobody gets near it
      const near = !none && limit.share >= 0.8;
      text.className = near ? 'near' : '';
      set(text, none ? `${limit.resource}: none allowed (${limit.source})`
        : `${limit.resource}: ${limit.used} of ${limit.hard} (${limit.source})${limit.share >= 1 ? ', reached' : near ? ', nearly reached' : ''}`);
      meter.hidden = none;
      meter.value = Math.min(limit.share, 1);
      meter.setAttribute('aria-label', `${limit.resource} of ${limit.source}`);
    });
  };

  const columns = [
    ['Status', 'state'], ['Age', 'when'], ['Idle for', 'when'], ['Cull at', 'when'], ['Reason', 'why'], ['Pod', 'pod'], ['', 'act'],
  ];

  const newView = (name) => {
    const section = make('section');
    const title = make('h2', 'name', name);
    title.id = `template-${crypto.getRandomValues(new Uint32Array(2)).join('-')}`;
    section.setAttribute('aria-labelledby', title.id);
    const stopAll = make('button', '', 'Stop all');
    stopAll.type = 'button';
    stopAll.setAttribute('aria-label', `Stop all instances of ${name}`);
    const top = make('div', 'title');
    const facts = make('p', 'facts');
    top.append(title, facts, stopAll);
    const table = make('table');
    table.setAttribute('aria-labelledby', title.id);
    const head = table.createTHead().insertRow();
    for (const [label] of columns) {
      const cell = make('th', '', label);
      cell.scope = 'col';
      if (label === '') {
        cell.setAttribute('aria-label', 'Stop');
      }
      head.append(cell);
    }
    const rest = make('p', 'aside');
    section.append(top, table, rest);
    const view = { name, section, stopAll, facts, table, body: table.createTBody(), rest, rows: new Map() };
    stopAll.addEventListener('click', () => confirmed(`Stop all instances of ${name}?`, () => stopTemplate(view)));
    return view;
  };

  const showTemplate = (view, template) => {
    const all = template.pending + template.deploying + template.deployed + template.failed;
    const facts = [`${template.deployed} deployed, ${template.pending + template.deploying} starting, ${template.failed} failed`];
    const most = template['max-instances'];
    if (most === 0) {
      facts.push('launches are paused (max-instances is 0)');
    } else if (most !== undefined) {
      facts.push(`${all - template.failed} of ${most} allowed`);
    }
    const pool = template.pool;
    if (pool.size + pool.ready + pool.starting > 0) {
      facts.push(`pool of ${pool.size}: ${pool.ready} ready, ${pool.starting} starting`);
    }
    const preload = template.preload;
    if (preload) {
      const why = [preload.reason, preload.message].filter(Boolean).join(': ');
      facts.push(`preload ${preload.status} on ${preload['nodes-done']} of ${count(preload['nodes-to-do'], 'node')}${why ? ` (${why})` : ''}`);
    }
    if (!template['in-cluster']) {
      facts.push('no PodTemplate in the cluster');
    }
    set(view.facts, `${facts.join('; ')}.`);
    view.table.hidden = template.instances.length === 0;
    view.stopAll.hidden = all === 0;
    const more = all - template.instances.length;
    view.rest.hidden = more <= 0;
    set(view.rest, `The oldest ${template.instances.length} are shown, and ${more} more are not.`);
    const ids = new Set(template.instances.map((instance) => instance.id));
    for (const [id, row] of view.rows) {
      if (!ids.has(id)) {
        row.line.remove();
        view.rows.delete(id);
      }
    }
    template.instances.forEach((instance, i) => {
      if (!view.rows.has(instance.id)) {
        view.rows.set(instance.id, newRow(view, instance));
      }
      const row = view.rows.get(instance.id);
      row.instance = instance;
      place(view.body, row.line, i);
      showRow(row);
      showTimes(row);
    });
  };

  const newRow = (view, instance) => {
    const line = make('tr');
    const cells = columns.map(([label, className]) => {
      const cell = make('td', className);
      cell.dataset.label = label;
      line.append(cell);
      return cell;
    });
    const [status, age, idle, cull, why, pod, act] = cells;
    const row = {
      line, instance, cells: { idle, cull, why },
      status: make('span', 'status'), age: make('span'), idle: make('span'), cull: make('time'),
      reason: make('span', 'reason'), text: make('span', 'text'), detail: make('span', 'detail'),
      button: make('button', '', 'Stop'),
    };
    status.append(row.status);
    age.append(row.age);
    idle.append(row.idle);
    cull.append(row.cull);
    why.append(row.reason, row.text, row.detail);
    pod.append(make('span', 'name', instance.pod));
    act.append(row.button);
    row.button.type = 'button';
    row.button.setAttribute('aria-label', `Stop ${instance.pod}`);
    row.button.addEventListener('click', () => confirmed(`Stop ${instance.pod} of ${view.name}?`, async () => {
      say('');
      const problem = await stopRow(view.name, instance.id, row);
      if (problem) {
        say(`${instance.pod} was not stopped: ${problem}`);
      }
    }));
    return row;
  };

  const signs = { pending: '◌', deploying: '◔', deployed: '●', failed: '✕' };

  const showRow = (row) => {
    const instance = row.instance;
    row.status.dataset.status = instance.status;
    set(row.status, `${signs[instance.status] || ''} ${instance.status}`);
    set(row.reason, instance.reason || '');
    set(row.text, instance.message || '');
    set(row.detail, instance.detail || '');
    row.cells.why.classList.toggle('empty', !instance.reason && !instance.message && !instance.detail);
    row.cells.idle.classList.toggle('empty', !instance['last-activity']);
    row.cells.cull.classList.toggle('empty', !instance['cull-at']);
    const cull = instance['cull-at'];
    if (cull) {
      row.cull.dateTime = cull;
      row.cull.title = new Date(cull).toLocaleString();
    }
  };

  // span returns a time in milliseconds for people.
  const span = (milliseconds) => {
    const seconds = Math.max(0, Math.floor(milliseconds / 1000));
    const minutes = Math.floor(seconds / 60);
    const hours = Math.floor(minutes / 60);
    if (seconds < 60) {
      return `${seconds} s`;
    }
    if (minutes < 60) {
      return `${minutes} min`;
    }
    return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
  };

  const showTimes = (row) => {
    const now = Date.now() + skew;
    const { launched, 'last-activity': used, 'last-activity-source': source, 'cull-at': cull } = row.instance;
    set(row.age, span(now - Date.parse(launched)));
    set(row.idle, used ? span(now - Date.parse(used)) + (source ? ` (${source})` : '') : '');
    if (cull) {
      const clock = new Date(cull).toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' });
      set(row.cull, Date.parse(cull) > now ? `${clock}, in ${span(Date.parse(cull) - now)}` : `${clock}, due`);
    } else {
      set(row.cull, '');
    }
  };

  setInterval(() => {
    for (const view of views.values()) {
      for (const row of view.rows.values()) {
        showTimes(row);
      }
    }
  }, 5000);

  // confirmed asks, and then acts.
  const confirmed = (question, act) => {
    const dialog = element('confirm');
    set(element('confirm-text'), question);
    dialog.returnValue = 'cancel';
    dialog.onclose = () => {
      if (dialog.returnValue === 'stop' && key !== '') {
        act();
      }
    };
    dialog.showModal();
  };

  // stop stops an instance, and returns what was wrong. One that has gone is stopped.
  const stop = async (template, id) => {
    try {
      const answer = await ask(`/applications/${encodeURIComponent(template)}/${id}`, { method: 'DELETE' });
      return answer.ok || answer.status === 404 ? '' : await problemOf(answer);
    } catch {
      return 'the service does not answer';
    }
  };

  const stopRow = async (template, id, row) => {
    row.button.disabled = true;
    set(row.button, 'Stopping …');
    const problem = await stop(template, id);
    if (problem) {
      row.button.disabled = false;
      set(row.button, 'Stop');
    }
    return problem;
  };

  // stopTemplate stops all instances of a template, and not only those that are shown.
  const stopTemplate = async (view) => {
    say('');
    view.stopAll.disabled = true;
    set(view.stopAll, 'Stopping …');
    try {
      const answer = await ask(`/applications/${encodeURIComponent(view.name)}`, {});
      if (!answer.ok) {
        throw new Error(await problemOf(answer));
      }
      const left = (await answer.json()).filter((instance) => instance.status !== 'deleted').map((instance) => instance.id);
      const all = left.length;
      const problems = [];
      const work = async () => {
        while (left.length > 0 && key !== '') {
          const problem = await stop(view.name, left.shift());
          if (problem) {
            problems.push(problem);
          }
          set(view.stopAll, `Stopping, ${left.length} left …`);
        }
      };
      await Promise.all(Array.from({ length: stopsAtOnce }, work));
      if (problems.length > 0) {
        say(`${problems.length} of ${count(all, 'instance')} of ${view.name} were not stopped: ${problems[0]}`);
      }
    } catch (error) {
      say(`The instances of ${view.name} were not stopped: ${error.message}`);
    }
    view.stopAll.disabled = false;
    set(view.stopAll, 'Stop all');
  };

  element('login').addEventListener('submit', (event) => {
    event.preventDefault();
    const input = element('key');
    key = input.value.trim();
    input.value = '';
    if (!/^[ -~]+$/.test(key)) { // no header can have it
      forget('This is no key: it has characters that no key has.');
      return;
    }
    say('');
    setLive('Connecting …');
    watching.abort();
    watching = new AbortController();
    watch(watching);
  });
  element('forget').addEventListener('click', () => forget(''));
  // A page that comes back by the Back button was kept in memory, and the key with it.
  addEventListener('pagehide', () => forget(''));
})();
