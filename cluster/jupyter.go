package main

// jupyterImage returns the image with Debian's Jupyter: the classic Notebook and
// JupyterLab.
func jupyterImage() debianImage {
	return debianImage{
		recipe: debianRecipe("jupyter-notebook,python3-ipykernel,python3-async-lru,python3-jupyterlab-server,python3-notebook-shim",
			"--dpkgopt=path-exclude=/usr/share/javascript/mathjax/unpacked/*",
			// The jupyterlab package depends on more than a gigabyte of packages that
			// build its pages. Serving the built pages takes Python only.
			`--customize-hook=cd "$1/tmp" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download jupyterlab`,
			`--customize-hook=dpkg-deb --fsys-tarfile "$1"/tmp/jupyterlab_*.deb | tar --extract --directory="$1" `+
				`--exclude=./usr/share/nodejs --exclude=./usr/share/doc --exclude="*.map"`,
			`--customize-hook=rm "$1"/tmp/jupyterlab_*.deb`,
		),
		config: debianConfig("/home/main", "jupyter-notebook"),
	}
}
