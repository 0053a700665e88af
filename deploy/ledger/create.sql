-- Run once, by an empty server: a role that is no superuser, and the database that it owns.
\set ON_ERROR_STOP on
\set password `cat /run/secrets/ledger_password`
CREATE ROLE peerloan LOGIN PASSWORD :'password';
CREATE DATABASE peerloan OWNER peerloan;
