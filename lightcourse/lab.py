"""Notebooks as a learner should find them: not changed by opening, and without results.

JupyterLab writes into a notebook which kernel it has started, down to Python's version, and
marks it as changed where something else stands there. The notebooks of the course name no
version: whoever runs them has another one.

Their results, which readers of the web look at, would answer every question before it is read.
A notebook that names a version was saved by somebody who ran it, and keeps what it has.
"""

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelspec import KERNEL_NAME
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager


class Notebooks(AsyncLargeFileManager):
    """The files of JupyterLab's server; a notebook of the course awaits its learner.

    ``lightcourse lab`` names it to the server. Files change only when they are saved.
    """

    async def get(self, path, content=True, *args, **kwargs):
        """Return a file or folder as the server does, a notebook as it should be found."""
        model = await super().get(path, content, *args, **kwargs)
        if content and model["type"] == "notebook":
            notebook = model["content"]
            if "version" not in notebook.metadata.get("language_info", {"version": "unknown"}):
                _hide_results(notebook)
            self._name_kernel(notebook.metadata)
        return model

    def _name_kernel(self, metadata):
        if metadata.get("kernelspec", {}).get("name") != KERNEL_NAME:
            return  # another kernel: JupyterLab will ask it
        spec = self.parent.kernel_spec_manager.get_kernel_spec(KERNEL_NAME)
        named = {"name": KERNEL_NAME, "display_name": spec.display_name, "language": spec.language}
        metadata.update(kernelspec=named, language_info=IPythonKernel.language_info)


def _hide_results(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
