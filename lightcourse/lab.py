"""Notebooks as JupyterLab would write them, so that opening one does not change it.

JupyterLab writes into a notebook which kernel it has started, down to Python's version, and
marks it as changed where something else stands there. The notebooks of the course name no
version: whoever runs them has another one.
"""

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelspec import KERNEL_NAME
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager


class Notebooks(AsyncLargeFileManager):
    """The files of JupyterLab's server; a notebook is shown with the kernel that it will get.

    ``lightcourse lab`` names it to the server. Files change only when they are saved.
    """

    async def get(self, path, content=True, *args, **kwargs):
        """Return a file or folder as the server does, a notebook with its kernel named."""
        model = await super().get(path, content, *args, **kwargs)
        if content and model["type"] == "notebook":
            self._name_kernel(model["content"].metadata)
        return model

    def _name_kernel(self, metadata):
        if metadata.get("kernelspec", {}).get("name") != KERNEL_NAME:
            return  # another kernel: JupyterLab will ask it
        spec = self.parent.kernel_spec_manager.get_kernel_spec(KERNEL_NAME)
        named = {"name": KERNEL_NAME, "display_name": spec.display_name, "language": spec.language}
        metadata.update(kernelspec=named, language_info=IPythonKernel.language_info)
