"""Downloads of models: each pull is a row in the database, which a worker runs and any client can watch.

:class:`~app.services.pulls.service.PullService` starts and steers them,
:class:`~app.services.pulls.plan.PlanService` tells beforehand what they would download and need.
"""
