"""The default number of threads: affinity, CPU quotas of control groups, the environment."""

import os
import subprocess
import sys

import pytest

import fastlstm
from fastlstm._args.cpus import cgroup_quota, default_threads

V2 = "cgroup2 cgroup2 rw,nsdelegate"
V1 = "cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture
def system(tmp_path):
    """Return a function that makes a file system with these groups, mounts and files."""

    def make(groups, mounts, files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in groups))
        lines = [
            f"3{i} 25 0:2{i} {top} {place} rw,nosuid shared:{i} - {kind}\n"
            for i, (top, place, kind) in enumerate(mounts)
        ]
        (tmp_path / "proc/self/mountinfo").write_text("".join(lines))
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode("latin1"))
        return tmp_path

    return make


def v2(system, path, files, top="/", place="/sys/fs/cgroup"):
    inside = {f"{place.lstrip('/')}/{name}": content for name, content in files.items()}
    return system([f"0::{path}"], [("/", "/", "ext4 /dev/sda rw"), (top, place, V2)], inside)


def v1(system, path, quotas, top="/", place="/sys/fs/cgroup/cpu,cpuacct"):
    """Make groups of version 1, of a quota and a period each, beside one of version 2."""
    files = {}
    for name, numbers in quotas.items():
        for kind, number in zip(("quota", "period"), numbers, strict=True):
            files[f"{place}/{name}/cpu.cfs_{kind}_us".lstrip("/")] = f"{number}\n"
    groups = ["5:memory:/elsewhere", f"4:cpu,cpuacct:{path}", "1:name=systemd:/x", "0::/x"]
    mounts = [
        (top, place, V1),
        ("/", "/sys/fs/cgroup/memory", "cgroup cgroup rw,memory"),
        ("/", "/sys/fs/cgroup/unified", V2),
    ]
    return system(groups, mounts, files)


class TestQuota:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("200000 100000\n", 2),
            ("150000 100000\n", 2),  # rounded up
            ("100000 100000\n", 1),
            ("1000 100000\n", 1),
            ("100001 100000\n", 2),
            ("6400000 100000", 64),
            ("max 100000\n", None),
        ],
    )
    def test_version_2(self, system, content, expected):
        assert cgroup_quota(v2(system, "/app", {"app/cpu.max": content})) == expected

    @pytest.mark.parametrize(
        ("quota", "period", "expected"),
        [(200000, 100000, 2), (25000, 50000, 1), (110000, 100000, 2), (-1, 100000, None)],
    )
    def test_version_1(self, system, quota, period, expected):
        assert cgroup_quota(v1(system, "/app", {"app": (quota, period)})) == expected

    @pytest.mark.parametrize("level", range(4))
    def test_every_group_around_counts(self, system, level):
        """The quota of one group on the way to the root; the others have a greater one, or none."""
        places = ["", "a/", "a/b/", "a/b/c/"]
        files = {f"{place}cpu.max": "800000 100000" for place in places[::2]}
        files |= {"a/cpu.max": "max 100000", f"{places[level]}cpu.max": "300000 100000"}
        files["other/cpu.max"] = files["a/b/c/d/cpu.max"] = "100000 100000"
        assert cgroup_quota(v2(system, "/a/b/c", files)) == 3

    @pytest.mark.parametrize("level", range(3))
    def test_every_group_around_counts_in_version_1(self, system, level):
        places = ["", "a", "a/b"]
        quotas = dict.fromkeys(places, (-1, 100000)) | {places[level]: (300000, 100000)}
        quotas["other"] = 100000, 100000
        assert cgroup_quota(v1(system, "/a/b", quotas)) == 3

    def test_in_a_container_with_names_of_its_own(self, system):
        assert cgroup_quota(v2(system, "/", {"cpu.max": "200000 100000"})) == 2

    def test_in_a_container_that_sees_the_names_of_its_host(self, system):
        """The group is the root of what is mounted, though its name is that of the host."""
        top = "/docker/0123"
        assert cgroup_quota(v1(system, top, {"": (200000, 100000)}, top)) == 2

    def test_a_group_within_what_is_mounted(self, system):
        quotas = {"": (500000, 100000), "inner": (200000, 100000)}
        assert cgroup_quota(v1(system, "/docker/0123/inner", quotas, "/docker/0123")) == 2

    def test_a_mount_of_other_groups_is_no_limit(self, system):
        assert cgroup_quota(v2(system, "/app", {"cpu.max": "1 1"}, top="/application")) is None

    def test_names_with_spaces_and_colons(self, system):
        files = {"a b:c/cpu.max": "200000 100000"}
        root = v2(system, "/a b:c", files, place=r"/sys/fs/control\040groups")
        assert cgroup_quota(root) is None  # its files are in a folder with a backslash
        (root / "sys/fs/control groups/a b:c").mkdir(parents=True)
        (root / "sys/fs/control groups/a b:c/cpu.max").write_text("200000 100000")
        assert cgroup_quota(root) == 2

    def test_both_versions_at_once(self, system):
        root = v1(system, "/app", {"app": (300000, 100000)})
        assert cgroup_quota(root) == 3
        (root / "sys/fs/cgroup/unified/x").mkdir(parents=True)
        (root / "sys/fs/cgroup/unified/x/cpu.max").write_text("200000 100000")
        assert cgroup_quota(root) == 2

    @pytest.mark.parametrize(
        "content",
        [
            *("", "\n", "200000", "200000 0", "0 100000", "-5 100000", "1e5 100000", "max"),
            *("a b c", "200000 100000 1", "\xff\xfe\x00", "100000 max", "2.5 1"),
        ],
    )
    def test_files_without_sense_limit_nothing(self, system, content):
        assert cgroup_quota(v2(system, "/app", {"app/cpu.max": content})) is None

    @pytest.mark.parametrize("groups", [[], [""], ["0"], ["0:"], ["0::"], ["x:cpu:"], ["0::a"]])
    @pytest.mark.parametrize("mount", [("/", "/sys", V2), ("/", "/sys", ""), ("", "", V1)])
    def test_tables_without_sense_limit_nothing(self, system, groups, mount):
        assert cgroup_quota(system(groups, [mount], {"sys/app/cpu.max": "1 1"})) is None

    def test_a_system_without_groups(self, tmp_path):
        assert cgroup_quota(tmp_path) is None

    def test_unreadable_files_limit_nothing(self, system):
        root = v2(system, "/app", {"app/cpu.max/is/a/folder": ""})
        assert cgroup_quota(root) is None


class TestDefault:
    @pytest.fixture(autouse=True)
    def _eight_cpus(self, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    @pytest.mark.parametrize(
        ("quota", "variable", "expected"),
        [
            (None, None, (8, "the CPUs that the process may use")),
            (None, "3", (3, "FASTLSTM_NUM_THREADS")),
            (None, "12", (8, "the CPUs that the process may use")),
            (2, None, (2, "the CPU quota of the control group")),
            (2, "3", (2, "the CPU quota of the control group")),
            (4, "3", (3, "FASTLSTM_NUM_THREADS")),
            (16, None, (8, "the CPUs that the process may use")),
        ],
    )
    def test_is_the_smallest(self, system, quota, variable, expected):
        content = "max 100000" if quota is None else f"{quota}00000 100000"
        root = v2(system, "/app", {"app/cpu.max": content})
        environment = {} if variable is None else {"FASTLSTM_NUM_THREADS": variable}
        assert default_threads(environment, root) == expected

    @pytest.mark.parametrize("text", ["", " "])
    def test_an_empty_variable_is_none(self, tmp_path, text):
        assert default_threads({"FASTLSTM_NUM_THREADS": text}, tmp_path)[0] == 8

    @pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
    def test_what_is_no_number_is_named(self, tmp_path, text):
        with pytest.raises(ValueError, match=f"FASTLSTM_NUM_THREADS: expected .* got '{text}'"):
            default_threads({"FASTLSTM_NUM_THREADS": text}, tmp_path)

    def test_without_affinity_masks(self, tmp_path, monkeypatch):
        monkeypatch.delattr(os, "sched_getaffinity")
        monkeypatch.setattr(os, "cpu_count", lambda: 5)
        assert default_threads({}, tmp_path) == (5, "the CPUs of the machine")
        monkeypatch.setattr(os, "cpu_count", lambda: None)
        assert default_threads({}, tmp_path)[0] == 1


def config(variable, code=""):
    """Return what show_config says of the threads in a new process."""
    run = subprocess.run(
        [sys.executable, "-c", f"import fastlstm\n{code}\nfastlstm.show_config()"],
        env=os.environ | {"FASTLSTM_NUM_THREADS": variable},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.splitlines()[-1]


def test_show_config_says_where_the_number_comes_from():
    number, source = default_threads({})
    assert config("") == f"threads: {number} ({source})"
    if number > 1:
        assert config("1") == "threads: 1 (FASTLSTM_NUM_THREADS)"
    expected = f"threads: {number + 1} (set; at first {number}: {source})"
    assert config("", f"fastlstm.set_num_threads({number + 1})") == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks")
def test_the_affinity_mask_counts():
    code = "import os\nos.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nimport fastlstm"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}; print(fastlstm.get_num_threads())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "1\n"


@pytest.mark.parametrize("n", [257, 10**6])
def test_more_threads_than_there_may_be_are_refused(n):
    before = fastlstm.get_num_threads()
    with pytest.raises(ValueError, match=f"n: expected at most 256, got {n}"):
        fastlstm.set_num_threads(n)
    assert fastlstm.get_num_threads() == before
