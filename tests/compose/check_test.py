"""What `check` refuses: one mistake a case, and the whole complaint."""

import os
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

LOADER = SourceFileLoader("check", str(Path(__file__).with_name("check")))
check = module_from_spec(spec_from_loader("check", LOADER))
LOADER.exec_module(check)

WHOLE = """
services:
  engine:
    image: vllm/vllm-openai:v0.11.0
    command: ["--port", "${PORT:-8000}"]
    devices: [/dev/kfd]
    container_name: ${NAME:?the name of the engine}
    volumes:
      - cache:/cache
      - { type: bind, source: "${MODEL_PATH:?its directory}", target: /data, bind: { create_host_path: false } }
volumes: { cache: {} }
"""
ENV = "NAME=engine\nMODEL_PATH=/models\n#PORT=8000\n"

# The service's line or lines, and what is said about them.
SERVICES = {
    "a key that Compose does not know": (
        "image: a:1\n    restrat: always",
        "services.one: Unevaluated properties are not allowed ('restrat' was unexpected)",
    ),
    "a value of the wrong type": (
        "image: a:1\n    read_only: [yes]",
        "services.one.read_only: ['yes'] is not of type 'boolean', 'string'",
    ),
    "an image without a version": (
        "image: grafana/grafana",
        "services.one: the image grafana/grafana is not pinned: name a version",
    ),
    "an image that moves": ("image: a:latest", "services.one: the image a:latest is not pinned: name a version"),
    "a registry's port is no version": (
        "image: registry:5000/a",
        "services.one: the image registry:5000/a is not pinned: name a version",
    ),
    "a variable that may be empty": (
        "image: a:1\n    command: $EMPTY",
        "${EMPTY} is empty where it is not set: "
        "write ${EMPTY:-default}, or ${EMPTY:?what to set} so that Compose says what is missing",
    ),
    "a required variable without a message": (
        "image: a:1\n    command: ${EMPTY:?}",
        "${EMPTY} is required: write ${EMPTY:?what to set}",
    ),
    "a required variable that is a comment": (
        "image: a:1\n    command: ${COMMENTED:?say it}",
        "COMMENTED is required, and a comment in .env.example; make it a value",
    ),
    "a variable that the example does not have": (
        "image: a:1\n    command: ${EMPTY:-x} ${A:-${OTHER:-x}}",
        "OTHER is not in .env.example; put it there",
    ),
    "a variable that Compose cannot read": (
        "image: a:1\n    command: ${EMPTY:x}",
        "`${EMPTY:x}` has ${EMPTY:x}, which Compose does not understand",
    ),
    "a dollar that is none": (
        "image: a:1\n    command: costs 5$",
        "`costs 5$` has a $ that begins no variable; write $$ for one",
    ),
    "a brace that is open": ('image: a:1\n    command: "${EMPTY:-a"', "`${EMPTY:-a` has a ${ that is not closed"),
    "a key twice": (
        "image: a:1\n    image: a:2",
        'line 4: found duplicate key "image" with value "a:2" (original value: "a:1")',
    ),
    "a tag of nobody": ("image: !hide a:1", "line 3: could not determine a constructor for the tag '!hide'"),
    "a file that is not there": ("image: a:1\n    volumes: [./a.yml:/a.yml:ro]", "services.one: there is no ./a.yml"),
    "an env_file that is not there": ("image: a:1\n    env_file: other.env", "services.one: there is no other.env"),
    "a build without its Dockerfile": ("build: .", "services.one: there is no Dockerfile"),
    "a volume that is not declared": (
        "image: a:1\n    volumes: [data:/data]",
        "services.one: the volume data is not among `volumes`",
    ),
    "a network that is not declared": (
        "image: a:1\n    networks: [back]",
        "services.one: back is not among `networks`",
    ),
    "a dependency on nobody": (
        "image: a:1\n    depends_on: [two]",
        "services.one: depends_on names two, which is no service",
    ),
    "ports on the host's network": (
        'image: a:1\n    network_mode: host\n    ports: ["80:80"]',
        "services.one: it has the host's network, where `ports` mean nothing; leave them out",
    ),
    "a name that may be another's": (
        "image: a:1\n    container_name: a-${EMPTY:-a}",
        "services.one.container_name: a-${EMPTY:-a} is the same wherever it was not set: "
        "require it, with ${NAME:?what to set}",
    ),
    "a directory that Docker would make": (
        "image: a:1\n    volumes: [/srv/models:/data]",
        "services.one: Docker makes an empty directory of /srv/models where there is none: "
        "write a volume of `type: bind` with `bind: { create_host_path: false }`",
    ),
    "a directory that Docker would make, at length": (
        "image: a:1\n    volumes: [{ type: bind, source: /srv/models, target: /data }]",
        "services.one: Docker makes an empty directory of /srv/models where there is none: "
        "write a volume of `type: bind` with `bind: { create_host_path: false }`",
    ),
    "neither an image nor a build": (
        "command: x",
        "a service has neither image nor build, and no file beside it has all its services",
    ),
}


class Check(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory.name)
        Path("pool").mkdir()

    def complaints(self, **files: str) -> list[str]:
        names = {"env": ".env.example", "base": "docker-compose.yml", "over": "docker-compose.over.yml"}
        for name, text in files.items():
            Path("pool", names[name]).write_text(text, encoding="utf-8")
        return check.check(Path("pool"))

    def test_a_good_file_and_a_good_one_over_it(self) -> None:
        over = "services:\n  engine: { devices: !reset null, command: !override [a] }\n"
        self.assertEqual(self.complaints(base=WHOLE, over=over, env=ENV), [])

    def test_each_mistake_of_a_service(self) -> None:
        for name, (service, complaint) in SERVICES.items():
            with self.subTest(name):
                env = "EMPTY=\n#A=\n#COMMENTED=1\n"
                complaints = self.complaints(base=f"services:\n  one:\n    {service}\n", env=env)
                complaints = [text for text in complaints if "is used by no Compose file" not in text]
                self.assertEqual(complaints, [f"pool/docker-compose.yml: {complaint}"])

    def test_what_is_laid_over_a_file_has_to_fit(self) -> None:
        over = "services:\n  engine: { network_mode: host, image: !reset null, volumes: [models:/models] }\n"
        self.assertEqual(
            self.complaints(base=WHOLE, over=over, env=ENV),
            ["pool/docker-compose.yml with docker-compose.over.yml: "
             "services.engine: the volume models is not among `volumes`"],
        )
        over = "services:\n  other: { devices: [] }\n"
        self.assertEqual(
            self.complaints(over=over),
            ["pool/docker-compose.over.yml: "
             "a service has neither image nor build, and no file beside it has all its services"],
        )

    def test_an_example_with_what_nobody_uses(self) -> None:
        complaint = ["pool/.env.example: SPARE is used by no Compose file beside it"]
        self.assertEqual(self.complaints(base=WHOLE, env=ENV + "#SPARE=1\n"), complaint)
        handed_on = WHOLE.replace("devices:", "env_file: .env\n    devices:")
        self.assertEqual(self.complaints(base=handed_on), [])

    def test_an_example_that_is_not_one(self) -> None:
        for line, complaint in [
            ("PORT: 8000", "line 1: `PORT: 8000` is not NAME=value"),
            ("A=1\nA=2", "line 2: A is there twice"),
        ]:
            self.assertEqual(self.complaints(base=WHOLE, env=line), [f"pool/.env.example: {complaint}"])

    def test_a_place_without_compose_files(self) -> None:
        self.assertEqual(self.complaints(), ["pool: there is no Compose file beneath it"])


if __name__ == "__main__":
    unittest.main()
