"""One page about many runs: charts, tables, and an episode to step through with what the agent remembers."""

from memspan.reports.data import ReportRun, read_report_run
from memspan.reports.lens import Lens, play_lens
from memspan.reports.page import check_report_path, write_page

__all__ = ["Lens", "ReportRun", "check_report_path", "play_lens", "read_report_run", "write_page"]
