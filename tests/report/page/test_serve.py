"""The server of the live page answers two addresses, to this machine, and follows the records."""

import http.client
import json
import threading

import pytest

from lmexp.errors import UserError
from lmexp.files import read_json, write_json
from lmexp.report.page.serve import LivePage, fingerprint, make_server
from lmexp.runs.directory import RunDir
from tests.report.synthetic import write_study


@pytest.fixture
def served(tmp_path):
    folder = write_study(tmp_path)
    server = make_server(LivePage([folder], lambda version: f"page of {version}"), 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield folder, server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def get(port, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


def test_it_serves_the_page_and_its_version(served):
    _, port = served
    status, page, headers = get(port)
    version = json.loads(get(port, "/version")[1])["version"]
    assert status == 200 and page == f"page of {version}"
    assert headers["Content-Type"] == "text/html; charset=utf-8" and headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/report.html", "/sweep.json", "/../sweep.json", "/%2e%2e/etc/passwd", "/demo/", "/?x=1"]
)
def test_it_serves_nothing_else(served, path):
    assert get(served[1], path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "localhost.evil.example:{port}"]
)
def test_a_foreign_name_that_points_here_is_refused(served, host):
    _, port = served
    status, text, _ = get(port, Host=host.format(port=port))
    assert status == 403 and "page" not in text
    assert get(port, Host=f"localhost:{port}")[0] == 200


def test_it_listens_on_this_machine_only(tmp_path):
    server = make_server(LivePage([write_study(tmp_path)], str), 0)
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(UserError, match=f"port {server.server_port} cannot be used"):
        make_server(LivePage([], str), server.server_port)
    server.server_close()


def test_the_version_follows_records_curves_and_states_but_no_heartbeat(tmp_path):
    folder = write_study(tmp_path)
    run = RunDir(next(folder.glob("gpt_nano-l2-bf16-s1*")))
    versions = [fingerprint([folder])]
    run.update_state(heartbeat=12.0)
    assert fingerprint([folder]) == versions[0]
    run.update_state(state="running")
    versions.append(fingerprint([folder]))
    run.append_point({"step": 1, "tokens": 1, "loss": 2.0})
    versions.append(fingerprint([folder]))
    write_json(run.path / "record.json", {"rows": []})
    versions.append(fingerprint([folder]))
    assert len(set(versions)) == 4


def test_with_a_forecast_the_version_follows_results_in_other_sweeps(tmp_path):
    folder, other = write_study(tmp_path), write_study(tmp_path, "other")
    record = next(other.glob("*/record.json"))
    rows = read_json(record)
    record.unlink()
    before = fingerprint([folder])
    write_json(record, rows)
    assert fingerprint([folder]) == before, "without a forecast, its page does not show them"
    (folder / "forecasts").mkdir()
    write_json(folder / "forecasts" / "one.json", {})
    with_forecast = fingerprint([folder])
    record.unlink()
    without_run = fingerprint([folder])
    write_json(record.with_name("milestones.json"), rows)
    assert len({before, with_forecast, without_run, fingerprint([folder])}) == 4


def test_a_study_that_cannot_be_read_for_a_moment_leaves_the_page_before(tmp_path):
    folder = write_study(tmp_path)
    said = []

    def render(version):
        if said:
            raise UserError("not now")
        said.append(version)
        return "first"

    page = LivePage([folder], render)
    first = page.get()
    RunDir(next(folder.glob("gpt_nano-l2-bf16-s1*"))).update_state(state="running")
    page._not_before = 0.0
    assert page.get() == first


def test_a_study_that_cannot_be_read_at_all_is_a_wrong_input(tmp_path):
    def render(_):
        raise UserError("no runs")

    with pytest.raises(UserError, match="no runs"):
        LivePage([write_study(tmp_path)], render).get()
