SELECT
    to_regclass('procrastinate_jobs') IS NOT NULL AS are_there,
    to_regtype('procrastinate_job_to_defer_v1') IS NOT NULL AS are_new
