//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/binder-project/binder-deploy-kubernetes/e2e/harness"
)

// TestNotebookAPI uses the classic Notebook's API as its pages do: files, a terminal,
// interrupt and restart of a kernel.
func TestNotebookAPI(t *testing.T) {
	t.Parallel()
	for _, strip := range []bool{false, true} {
		t.Run(modeName(strip), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), harness.StartTimeout+2*visitTimeout)
			defer cancel()
			notebook := launchCopy(t, "jupyter", "notebook", strip, func(container *corev1.Container) {
				container.Args = slices.DeleteFunc(slices.Clone(container.Args), func(arg string) bool {
					return strip && strings.Contains(arg, "BINDER_BASE_URL")
				})
			}).AwaitDeployed(t)
			v := newVisitor(t, notebook)
			tree := v.get("/") // redirects to the tree, and sets the cookies
			require.Contains(t, tree.text, "Jupyter")
			require.Equal(t, v.home+"tree", strings.TrimSuffix(tree.Request.URL.String(), "?"))

			transferFiles(t, v)
			refusePastProxy(t, notebook)
			refuseUpload(ctx, t, v)
			useTerminal(ctx, t, v, notebook.ID)
			controlKernel(ctx, t, v)
		})
	}
}

// refusePastProxy asks the notebook at its pod's address. Without the token it gives nothing
// away and runs nothing.
func refusePastProxy(t *testing.T, notebook *harness.Instance) {
	t.Helper()
	pod := notebook.Pod(t)
	base := "http://" + net.JoinHostPort(pod.Status.PodIP, "8888")
	if pod.Annotations["binder-project.org/strip-prefix"] != "true" {
		base += "/user/" + notebook.ID
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		code, _ := visit(t, method, base+"/api/kernels", nil, "Authorization", "token forged")
		assert.Equal(t, http.StatusForbidden, code, "%s past the proxy", method)
	}
}

// transferFiles uploads a binary file, and downloads it whole and in part.
func transferFiles(t *testing.T, v *visitor) {
	t.Helper()
	data := strings.Repeat("\x00\xff\r\n", 1<<20)
	upload, err := json.Marshal(map[string]string{
		"type": "file", "format": "base64", "content": base64.StdEncoding.EncodeToString([]byte(data)),
	})
	require.NoError(t, err)
	send(t, v.http, http.MethodPut, v.home+"api/contents/a%20file%25.bin", string(upload), http.StatusCreated)
	whole := v.get("files/a%20file%25.bin?download=1", "Referer", v.home+"tree") // Jupyter asks for one
	require.Equal(t, http.StatusOK, whole.StatusCode)
	assert.True(t, data == whole.text, "the download differs from the upload: %d bytes", len(whole.text))
	assert.Contains(t, whole.Header.Get("Content-Disposition"), "attachment")
	send(t, v.http, http.MethodDelete, v.home+"api/contents/a%20file%25.bin", "", http.StatusNoContent)
	assert.Equal(t, http.StatusNotFound, v.get("files/a%20file%25.bin", "Referer", v.home+"tree").StatusCode)
}

// refuseUpload sends more than Jupyter takes. Jupyter answers when it has read the length,
// and closes the connection.
func refuseUpload(ctx context.Context, t *testing.T, v *visitor) {
	t.Helper()
	const size = 600 << 20
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, v.home+"api/contents/huge.bin", io.LimitReader(zeros{}, size))
	require.NoError(t, err)
	request.ContentLength = size
	response, err := v.http.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	assert.Equal(t, http.StatusBadRequest, response.StatusCode)
}

// useTerminal runs a command in a new terminal.
func useTerminal(ctx context.Context, t *testing.T, v *visitor, id string) {
	t.Helper()
	var terminal struct{ Name string }
	require.NoError(t, json.Unmarshal([]byte(open(t, v.http, http.MethodPost, v.home+"api/terminals", http.StatusOK)), &terminal))
	connection, _, err := websocket.Dial(ctx, v.home+"terminals/websocket/"+terminal.Name, from(v.http, browserHost))
	require.NoError(t, err)
	defer connection.CloseNow()
	require.NoError(t, wsjson.Write(ctx, connection, []any{"stdin", "echo $((6*7))-$BINDER_ID\r"}))
	for output := ""; !strings.Contains(output, "42-"+id); {
		var message []any
		require.NoError(t, wsjson.Read(ctx, connection, &message), "the terminal has printed %q", output)
		if text, ok := message[len(message)-1].(string); ok && message[0] == "stdout" {
			output += text
		}
	}
	send(t, v.http, http.MethodDelete, v.home+"api/terminals/"+terminal.Name, "", http.StatusNoContent)
}

// controlKernel interrupts a computation, and restarts the kernel.
func controlKernel(ctx context.Context, t *testing.T, v *visitor) {
	t.Helper()
	var kernel struct{ ID string }
	require.NoError(t, json.Unmarshal([]byte(open(t, v.http, http.MethodPost, v.home+"api/kernels", http.StatusCreated)), &kernel))
	address := v.home + "api/kernels/" + kernel.ID
	connect := func() *websocket.Conn {
		t.Helper()
		channels, _, err := websocket.Dial(ctx, address+"/channels", from(v.http, browserHost))
		require.NoError(t, err)
		t.Cleanup(func() { _ = channels.CloseNow() })
		channels.SetReadLimit(1 << 20)
		return channels
	}
	channels := connect()
	require.Equal(t, "1", execute(ctx, t, channels, "x = 1; x"))

	submit(ctx, t, channels, "import time; print('computing', flush=True); time.sleep(3600)")
	awaitMessage(ctx, t, channels, "stream", "text", "computing")
	open(t, v.http, http.MethodPost, address+"/interrupt", http.StatusNoContent)
	awaitMessage(ctx, t, channels, "error", "ename", "KeyboardInterrupt")

	open(t, v.http, http.MethodPost, address+"/restart", http.StatusOK)
	// The pages connect again after a restart.
	require.Equal(t, "False", execute(ctx, t, connect(), "'x' in globals()"))
}

// awaitMessage waits for a message of a kind whose content has a text.
func awaitMessage(ctx context.Context, t *testing.T, channels *websocket.Conn, kind, field, want string) {
	t.Helper()
	for {
		var message kernelMessage
		require.NoError(t, wsjson.Read(ctx, channels, &message), "no %s with %s yet", kind, want)
		if text, ok := message.Content[field].(string); ok && message.Header["msg_type"] == kind && strings.Contains(text, want) {
			return
		}
	}
}

// TestNotebookPages uses the classic Notebook's pages in a browser: it uploads and
// downloads a file, interrupts and restarts a kernel, and opens a terminal.
func TestNotebookPages(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	notebook := suite.Launch(t, "jupyter", harness.LongTimeout).AwaitDeployed(t)
	home := browserHost + "/user/" + notebook.ID + "/"

	file := filepath.Join(t.TempDir(), "upload.txt")
	require.NoError(t, os.WriteFile(file, []byte("uploaded"), 0o600))
	b.open(home + "tree")
	b.await(pageWait, `Boolean(window.Jupyter && Jupyter.notebook_list && Jupyter.notebook_list.sessions)`)
	b.do(chromedp.SetUploadFiles(chromedp.CSS("#notebook_toolbar input.fileinput"), []string{file}))
	b.await(pageWait, `document.querySelector("#notebook_list .upload_button") !== null`)
	b.click("#notebook_list .upload_button")
	b.await(pageWait, `[...document.querySelectorAll("#notebook_list a.item_link")].some(link => link.getAttribute("href").endsWith("/edit/upload.txt"))`)
	assert.Equal(t, "uploaded", eval[string](b, `fetch("files/upload.txt?download=1").then(answer => answer.text())`))

	createNotebook(t, notebook, "/tree", "control.ipynb")
	b.open(home + "notebooks/control.ipynb")
	b.await(pageWait, `Boolean(window.Jupyter && Jupyter.notebook && Jupyter.notebook.kernel && Jupyter.notebook.kernel.is_connected())`)
	run := func(code, output string) {
		t.Helper()
		b.do(chromedp.Evaluate[chromedp.Void](`(() => {
			const cell = Jupyter.notebook.insert_cell_at_bottom("code");
			cell.set_text(` + code + `);
			cell.execute();
		})()`))
		b.awaitOutput(output)
	}
	run(`"x = 1; print('x is', x)"`, "x is 1")
	run(`"import time; print('computing'); time.sleep(3600)"`, "computing")
	b.do(chromedp.Evaluate[chromedp.Void](`Jupyter.notebook.kernel.interrupt()`))
	b.awaitOutput("KeyboardInterrupt")
	b.do(chromedp.Evaluate[chromedp.Void](`Jupyter.notebook.kernel.restart()`))
	b.await(pageWait, `Jupyter.notebook.kernel.is_connected()`)
	run(`"print('x is there:', 'x' in globals())"`, "x is there: False")

	b.open(home + "terminals/new")
	require.Equal(t, home+"terminals/1", b.address())
	// Debian's page of a terminal does not work with Debian's xterm. This does what
	// the page would do.
	assert.Contains(t, eval[string](b, `new Promise((resolve) => {
		const socket = new WebSocket(location.href.replace("http", "ws").replace("terminals/", "terminals/websocket/"));
		let output = "";
		socket.onopen = () => socket.send(JSON.stringify(["stdin", "echo $((6*7))-$BINDER_ID\r"]));
		socket.onmessage = (event) => {
			const [kind, text] = JSON.parse(event.data);
			if (kind === "stdout") output += text;
			if (output.includes("42-`+notebook.ID+`")) resolve(output);
		};
		socket.onclose = () => resolve("closed after " + output);
	})`), "42-"+notebook.ID)
}

// awaitOutput waits until the output of a cell contains a text.
func (b *browser) awaitOutput(text string) {
	b.t.Helper()
	b.await(pageWait, `[...document.querySelectorAll(".output_area")].some(area => area.innerText.includes("`+text+`"))`)
}
