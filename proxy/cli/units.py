"""The units that run comfykeep under systemd, as text.

They let the service do what it does and nothing else: talk TCP, write its state directory, read the counters of the GPU
(NVML needs the devices of the driver) and of ComfyUI's control group. It is ordered behind ComfyUI but does not depend
on it: prompts are taken while ComfyUI is away.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

MARK = "# Written by `comfykeep service install`."
"""The first line of a unit that may be overwritten and removed again."""

_HEAD = """\
{mark}
[Unit]
Description=comfykeep, a proxy that keeps ComfyUI's models loaded{instance}
After=network.target {comfyui}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command} serve --config {config}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=2
WatchdogSec=30
TimeoutStartSec=120
TimeoutStopSec=300
KillMode=mixed
UMask=0077
"""

_SYSTEM = """\
DynamicUser=yes
StateDirectory={state}
StateDirectoryMode=0700

ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateMounts=yes
DevicePolicy=closed
DeviceAllow=char-nvidia rw
DeviceAllow=char-nvidia-frontend rw
DeviceAllow=char-nvidiactl rw
DeviceAllow=char-nvidia-uvm rw
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""

_USER = """\
StateDirectory={state}
StateDirectoryMode=0700
NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
"""

_TAIL = """
[Install]
WantedBy={target}
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """What differs from one unit to the next. Paths are absolute; `%i` in `config` names one of several `instances`."""

    command: PurePosixPath
    config: PurePosixPath
    user: bool = False
    instances: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return "comfykeep@.service" if self.instances else "comfykeep.service"

    @property
    def text(self) -> str:
        """The file's content."""
        hidden = not any(self.command.is_relative_to(home) for home in ("/home", "/root"))
        head = _HEAD.format(
            mark=MARK,
            instance=" (%i)" if self.instances else "",
            comfyui="comfyui@%i.service" if self.instances else "comfyui.service",
            command=_word(self.command),
            config=_word(self.config).replace("%%i", "%i") if self.instances else _word(self.config),
        )
        body = (_USER if self.user else _SYSTEM).format(
            state="comfykeep/%i" if self.instances else "comfykeep", home="yes" if hidden else "read-only"
        )
        return head + body + _TAIL.format(target="default.target" if self.user else "multi-user.target")


def _word(path: PurePosixPath) -> str:
    """A path as a word of a command line (systemd.service(5), systemd.unit(5))."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("%", "%%")
    return f'"{text}"' if any(char in text for char in " \t'\";") else text
