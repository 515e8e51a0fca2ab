"""A JupyterHub that starts the course's image for each learner; docs/where-it-runs.md tells how."""

COURSE = "/srv/lightcourse"

# The hub hands it in.
c = get_config()  # noqa: F821
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.JupyterHub.hub_ip = "0.0.0.0"  # where containers reach the hub
c.DockerSpawner.image = "lightcourse"
c.DockerSpawner.remove = True
c.DockerSpawner.cpu_limit = 2
c.DockerSpawner.mem_limit = "6G"
# What a learner writes outlives the container. Docker fills an empty volume from the image.
c.DockerSpawner.volumes = {
    f"lightcourse-{{username}}-{folder}": f"{COURSE}/{folder}"
    for folder in ("chapters", "exercises", "solutions")
}
# As `lightcourse lab` does: chapters open without results, and without asking anything.
c.DockerSpawner.cmd = ["jupyterhub-singleuser"]
c.DockerSpawner.args = ["--ServerApp.contents_manager_class=lightcourse.lab.Notebooks"]
c.DockerSpawner.environment = {
    "JUPYTER_CONFIG_PATH": f"{COURSE}/lightcourse/bundled/jupyter",
    "LIGHTCOURSE_WIDGETS": "1",
}
c.DockerSpawner.notebook_dir = COURSE
c.DockerSpawner.default_url = "/lab/tree/chapters/00_start.ipynb"
